"""Push: the means of different instances keep their distance (Wolny et al. 2022, Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from training.losses.instances import Instances


def push(instances: Instances, delta_d: float) -> Tensor:
    """1/(C (C-1)) sum_{k != l} [ 2 delta_d - ||mu_k - mu_l|| ]_+^2, a scalar; 0 for one instance.

    The paper prints 1/C^2 with the pairs k = l, which add a constant; like the authors' code we
    leave them out. Where not all instances are near, the mean is over the pairs that are.
    """
    first, second = torch.triu(instances.near(), diagonal=1).nonzero(as_tuple=True)
    if len(first) == 0:
        return instances.means.sum() * 0.0
    distance = (instances.means[first] - instances.means[second]).norm(dim=1)
    return (relu(2 * delta_d - distance) ** 2).mean()
