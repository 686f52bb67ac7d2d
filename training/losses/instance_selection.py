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
from collections.abc import Callable

import torch
from torch import Tensor

from training.losses.chunks import sum_over_pixels
from training.losses.instances import Instances, mean_or_zero


def soft_masks(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """(N, D) embeddings and (C, D) anchors -> (C, N) values in 0..1."""
    return torch.exp2(_powers(embeddings, anchors, delta_v=delta_v, t=t))


def object_dice(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k (1 - Dice(S_k, I_k)) with the squared (V-Net) denominator, a scalar.

    Pixels of instances that are not near to k do not count in its mask. 0 without instances.

    Args:
        anchor: "random", a random pixel of the instance (the paper), or "mean", its mean
            embedding (the authors' code).
    """

    def compare(powers: Tensor, index: Tensor | None, near: Tensor | None) -> Tensor:
        masks = torch.exp2(powers)
        overlap, squares = masks.new_zeros(len(masks)), _sum(masks**2, near)
        if index is not None:
            of_own = masks.gather(0, index[None])[0]  # S_k(i) of the pixel's own instance
            overlap = overlap.index_add(0, index, of_own)
        return torch.stack([overlap, squares])

    overlap, squares = _over_all_pixels(instances, compare, anchor=anchor, delta_v=delta_v, t=t)
    dice = 2 * overlap / (squares + instances.counts).clamp(min=eps)
    return mean_or_zero(1 - dice)


def object_bce(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k 1/N sum_i -[ I_k(i) ln S_k(i) + (1 - I_k(i)) ln(1 - S_k(i)) ], a scalar.

    Pixels that are not near to k do not count, also not in N. With x the exponent, ln S = -x needs
    no care and ln(1 - S) = ln(1 - e^-x) is kept finite by x >= eps. `anchor` as in `object_dice`.
    """

    def compare(powers: Tensor, index: Tensor | None, near: Tensor | None) -> Tensor:
        x = -math.log(2) * powers
        costs = -torch.log(-torch.expm1(-x.clamp(min=eps)))
        if index is not None:
            costs = costs.scatter(0, index[None], x.gather(0, index[None]))
        return torch.stack([_sum(costs, near), _sum(torch.ones_like(costs), near)])

    costs, numbers = _over_all_pixels(instances, compare, anchor=anchor, delta_v=delta_v, t=t)
    return mean_or_zero(costs / numbers)


def instance_anchors(instances: Instances, anchor: str) -> Tensor:
    """(C, D): the embedding of a random pixel of each instance ("random"), or its mean ("mean")."""
    if anchor == "random":
        return instances.embeddings[instances.random_pixels()]
    return instances.means


def _over_all_pixels(
    instances: Instances,
    compare: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
    *,
    anchor: str,
    delta_v: float,
    t: float,
) -> Tensor:
    """(2, C): the sums of `compare` over the pixels of instances and over the unlabeled ones.

    compare(powers, index, near) -> (2, C) gets for n pixels the powers of their soft masks (C, n);
    their instances (n,), None where unlabeled; and (C, n), 1 where a pixel counts and 0 elsewhere,
    None where all do.
    """
    anchors = instance_anchors(instances, anchor)
    boxes = instances.neighbourhood
    pairs = None if boxes is None else boxes.pairs().to(anchors.dtype)

    def labeled(embeddings: Tensor, index: Tensor, anchors: Tensor) -> Tensor:
        near = None if pairs is None else pairs.index_select(1, index)
        return compare(_powers(embeddings, anchors, delta_v=delta_v, t=t), index, near)

    def unlabeled(embeddings: Tensor, places: Tensor, anchors: Tensor) -> Tensor:
        near = None if boxes is None else boxes.pixels(places, anchors.dtype)
        return compare(_powers(embeddings, anchors, delta_v=delta_v, t=t), None, near)

    width = len(anchors)
    pixels = instances.embeddings, instances.index
    sums = sum_over_pixels(labeled, pixels, (anchors,), width=width)
    if instances.unlabeled is not None:
        assert instances.unlabeled_places is not None
        rest = instances.unlabeled, instances.unlabeled_places
        sums = sums + sum_over_pixels(unlabeled, rest, (anchors,), width=width)
    return sums


def _sum(values: Tensor, near: Tensor | None) -> Tensor:
    """(C, n) -> (C,), of the pixels that count."""
    return (values if near is None else values * near).sum(1)


def _powers(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """log2 S_k(i) = -||e_i - a_k||^2 / (2 sigma^2 ln 2), (C, N).

    One product holds |a|^2 + |e|^2 - 2 a e. Powers of 2, since exp takes ten to thirty times as
    long on a CPU where its result is 0 or nearly so, as it is for most pixels; exp2 does not.
    """
    factor = math.log2(t) / delta_v**2
    a_squared = (anchors**2).sum(1, keepdim=True)
    e_squared = torch.linalg.vecdot(embeddings, embeddings)[:, None]
    left = torch.cat([-2 * anchors, a_squared, torch.ones_like(a_squared)], dim=1) * factor
    right = torch.cat([embeddings, torch.ones_like(e_squared), e_squared], dim=1)
    powers = left @ right.T
    with torch.no_grad():
        powers.clamp_(max=0)  # positive by rounding only: nothing for the gradient, which is slow
    return powers
