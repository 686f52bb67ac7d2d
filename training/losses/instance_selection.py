"""Differentiable instance selection: soft masks around anchors, compared as objects.

An anchor stands for its instance k; every pixel near it in embedding space is selected
(Wolny et al. 2022, Eq. 3)::

    S_k(i) = exp(-||e_i - a_k||^2 / (2 sigma^2)),   sigma^2 = -delta_v^2 / (2 ln t)

so that S = t at distance delta_v. Each soft mask is compared with the true one by Dice (Eq. 4), or
by any other loss of two masks, such as binary cross-entropy.

Unlabeled pixels count in the masks: whatever they are, they are not of a labeled instance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.losses.instances import Instances, mean_or_zero


def soft_masks(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """(N, D) embeddings and (C, D) anchors -> (C, N) values in 0..1."""
    return torch.exp(-_exponents(embeddings, anchors, delta_v=delta_v, t=t))


def object_dice(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k (1 - Dice(S_k, I_k)) with the squared (V-Net) denominator, a scalar.

    Pixels of instances that are not near to k do not count in its mask. 0 without instances.

    Args:
        anchor: "random", a random pixel of the instance (the paper), or "mean", its mean
            embedding (the authors' code).
    """
    anchors = instance_anchors(instances, anchor)
    masks = soft_masks(instances.embeddings, anchors, delta_v=delta_v, t=t)
    masks = masks * instances.near[:, instances.index]
    of_own = masks.gather(0, instances.index[None])[0]  # S_k(i) of the pixel's own instance
    overlap = torch.zeros_like(instances.counts).index_add(0, instances.index, of_own)
    squares = (masks**2).sum(1)
    if instances.unlabeled is not None:
        assert instances.near_unlabeled is not None
        outside = soft_masks(instances.unlabeled, anchors, delta_v=delta_v, t=t)
        squares = squares + ((outside * instances.near_unlabeled) ** 2).sum(1)
    dice = 2 * overlap / (squares + instances.counts).clamp(min=eps)
    return 1 - dice.mean() if len(dice) else dice.sum()


def object_bce(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k 1/N sum_i -[ I_k(i) ln S_k(i) + (1 - I_k(i)) ln(1 - S_k(i)) ], a scalar.

    Pixels that are not near to k do not count, also not in N. With x the exponent, ln S = -x needs
    no care and ln(1 - S) = ln(1 - e^-x) is kept finite by x >= eps. `anchor` as in `object_dice`.
    """
    anchors = instance_anchors(instances, anchor)
    x = _exponents(instances.embeddings, anchors, delta_v=delta_v, t=t)
    own = instances.index[None]
    cost = _not_selected(x, eps).scatter(0, own, x.gather(0, own))
    near = instances.near[:, instances.index]
    costs, numbers = (cost * near).sum(1), near.sum(1)
    if instances.unlabeled is not None:
        assert instances.near_unlabeled is not None
        outside = _exponents(instances.unlabeled, anchors, delta_v=delta_v, t=t)
        costs = costs + (_not_selected(outside, eps) * instances.near_unlabeled).sum(1)
        numbers = numbers + instances.near_unlabeled.sum(1)
    return mean_or_zero(costs / numbers)


def instance_anchors(instances: Instances, anchor: str) -> Tensor:
    """(C, D): the embedding of a random pixel of each instance ("random"), or its mean ("mean")."""
    if anchor == "random":
        return instances.embeddings[instances.random_pixels()]
    return instances.means


def _exponents(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """||e_i - a_k||^2 / (2 sigma^2), (C, N)."""
    two_sigma_squared = -(delta_v**2) / math.log(t)
    squared = (anchors**2).sum(1)[:, None] + (embeddings**2).sum(1)[None]
    squared = (squared - 2 * anchors @ embeddings.T).clamp(min=0)
    return squared / two_sigma_squared


def _not_selected(exponents: Tensor, eps: float) -> Tensor:
    """-ln(1 - S)."""
    return -torch.log(-torch.expm1(-exponents.clamp(min=eps)))
