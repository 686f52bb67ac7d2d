"""Pull: the pixels of an instance gather around its mean (Wolny et al. 2022, Eq. 1)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import relu

from training.losses.chunks import sum_over_pixels
from training.losses.instances import Instances, mean_or_zero


def pull(instances: Instances, delta_v: float) -> Tensor:
    """1/C sum_k 1/N_k sum_i [ ||mu_k - e_i|| - delta_v ]_+^2, a scalar; 0 without instances."""
    sums = sum_over_pixels(
        partial(_hinges, delta_v=delta_v),
        (instances.embeddings, instances.index),
        (instances.means,),
        width=instances.means.shape[1],
    )
    return mean_or_zero(sums / instances.counts)


def _hinges(embeddings: Tensor, index: Tensor, means: Tensor, *, delta_v: float) -> Tensor:
    """(C,): the sum over the pixels of each instance."""
    difference = embeddings - means.index_select(0, index)
    squared = torch.linalg.vecdot(difference, difference)
    # the root of 0 has no slope; here it is 0
    distance = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
    hinges = relu(distance - delta_v) ** 2
    return hinges.new_zeros(len(means)).index_add(0, index, hinges)
