"""Regulariser: means stay near the origin, so that the embedding space does not drift."""

from __future__ import annotations

from torch import Tensor

from training.losses.instances import Instances, mean_or_zero


def regulariser(instances: Instances) -> Tensor:
    """1/C sum_k ||mu_k||, a scalar (De Brabandere et al. 2017, Eq. 3); 0 without instances."""
    lengths: Tensor = instances.means.norm(dim=1)
    return mean_or_zero(lengths)
