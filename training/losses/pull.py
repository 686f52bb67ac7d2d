"""Pull: the pixels of an instance gather around its mean (Wolny et al. 2022, Eq. 1)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from training.losses.instances import Instances


def pull(instances: Instances, delta_v: float) -> Tensor:
    """1/C sum_k 1/N_k sum_i [ ||mu_k - e_i|| - delta_v ]_+^2, a scalar."""
    own_mean = instances.means[instances.index]
    distance = (instances.embeddings - own_mean).norm(dim=1)
    return instances.average(relu(distance - delta_v) ** 2)
