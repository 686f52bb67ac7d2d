"""Unlabeled push: unlabeled pixels keep away from labeled instances (Wolny et al. 2022, Eq. 6).

Whatever an unlabeled pixel is, it is of no labeled instance. The hinge is delta_d, where that of
two means is 2 delta_d.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from training.losses.chunks import sum_over_pixels
from training.losses.instances import Instances, mean_or_zero


def unlabeled_push(instances: Instances, delta_d: float) -> Tensor:
    """1/C sum_k 1/N_U sum_{i in U} [ delta_d - ||mu_k - e_i|| ]_+^2, a scalar.

    Where not all pixels are near to k, N_U counts the near ones. 0 without instances, or without
    unlabeled pixels.
    """
    assert instances.unlabeled is not None
    assert instances.unlabeled_places is not None
    neighbourhood = instances.neighbourhood

    def hinges(embeddings: Tensor, places: Tensor, means: Tensor) -> Tensor:
        """(2, C): the sum over the pixels, and how many they are."""
        # differences, not the expanded square: its rounding makes the gradient of a small
        # distance wild
        distance = torch.cdist(means, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
        costs = relu(delta_d - distance) ** 2
        if neighbourhood is None:
            return torch.stack([costs.sum(1), costs.new_full((len(means),), len(embeddings))])
        near = neighbourhood.pixels(places, costs.dtype)
        return torch.stack([(costs * near).sum(1), near.sum(1)])

    sums, numbers = sum_over_pixels(
        hinges,
        (instances.unlabeled, instances.unlabeled_places),
        (instances.means,),
        width=len(instances.means),
    )
    return mean_or_zero(sums / numbers.clamp(min=1))
