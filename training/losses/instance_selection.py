"""Differentiable instance selection: soft masks around anchors, compared as objects.

An anchor stands for its instance k; every pixel near it in embedding space is selected
(Wolny et al. 2022, Eq. 3)::

    S_k(i) = exp(-||e_i - a_k||^2 / (2 sigma^2)),   sigma^2 = -delta_v^2 / (2 ln t)

so that S = t at distance delta_v. Each soft mask is compared with the true one by Dice (Eq. 4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.losses.instances import Instances


def soft_masks(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """(N, D) embeddings and (C, D) anchors -> (C, N) values in 0..1."""
    two_sigma_squared = -(delta_v**2) / math.log(t)
    squared = (anchors**2).sum(1)[:, None] + (embeddings**2).sum(1)[None]
    squared = (squared - 2 * anchors @ embeddings.T).clamp(min=0)
    return torch.exp(-squared / two_sigma_squared)


def object_dice(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k (1 - Dice(S_k, I_k)) with the squared (V-Net) denominator, a scalar.

    Pixels of instances that are not near to k do not count in its mask.

    Args:
        anchor: "random", a random pixel of the instance (the paper), or "mean", its mean
            embedding (the authors' code).
    """
    if anchor == "random":
        anchors = instances.embeddings[instances.random_pixels()]
    else:
        anchors = instances.means
    masks = soft_masks(instances.embeddings, anchors, delta_v=delta_v, t=t)
    masks = masks * instances.near[:, instances.index]
    of_own = masks.gather(0, instances.index[None])[0]  # S_k(i) of the pixel's own instance
    overlap = torch.zeros_like(instances.counts).index_add(0, instances.index, of_own)
    dice = 2 * overlap / ((masks**2).sum(1) + instances.counts).clamp(min=eps)
    return 1 - dice.mean()
