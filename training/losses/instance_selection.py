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
from functools import partial

import torch
from torch import Tensor

from training.losses.chunks import sum_over_pixels
from training.losses.instances import Instances, mean_or_zero
from training.losses.mask_sums import Near, mask_sums, powers


def soft_masks(embeddings: Tensor, anchors: Tensor, *, delta_v: float, t: float) -> Tensor:
    """(N, D) embeddings and (C, D) anchors -> (C, N) values in 0..1."""
    return torch.exp2(_powers(embeddings, anchors, _factor(delta_v, t)))


def object_dice(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k (1 - Dice(S_k, I_k)) with the squared (V-Net) denominator, a scalar.

    Pixels of instances that are not near to k do not count in its mask. 0 without instances.

    Args:
        anchor: "random", a random pixel of the instance (the paper), or "mean", its mean
            embedding (the authors' code).
    """
    anchors, factor = instance_anchors(instances, anchor), _factor(delta_v, t)
    near, near_unlabeled = _near(instances, anchors.dtype)
    index, places = instances.index, instances.unlabeled_places
    sums = mask_sums(instances.embeddings, anchors, index, _of_part(near, index), factor)
    if instances.unlabeled is not None:
        assert places is not None
        counted = _of_part(near_unlabeled, places)
        sums = sums + mask_sums(instances.unlabeled, anchors, None, counted, factor)
    overlap, squares = sums
    dice = 2 * overlap / (squares + instances.counts).clamp(min=eps)
    return mean_or_zero(1 - dice)


def object_bce(
    instances: Instances, *, delta_v: float, t: float, anchor: str, eps: float = 1e-6
) -> Tensor:
    """1/C sum_k 1/N sum_i -[ I_k(i) ln S_k(i) + (1 - I_k(i)) ln(1 - S_k(i)) ], a scalar.

    Pixels that are not near to k do not count, also not in N. With x the exponent, ln S = -x needs
    no care and ln(1 - S) = ln(1 - e^-x) is kept finite by x >= eps. `anchor` as in `object_dice`.
    """
    anchors, factor = instance_anchors(instances, anchor), _factor(delta_v, t)
    near, near_unlabeled = _near(instances, anchors.dtype)

    def of_others(x: Tensor) -> Tensor:
        return -torch.log(-torch.expm1(-x.clamp(min=eps)))

    def labeled(embeddings: Tensor, index: Tensor, anchors: Tensor) -> Tensor:
        x = -math.log(2) * _powers(embeddings, anchors, factor)
        costs = of_others(x).scatter(0, index[None], x.gather(0, index[None]))
        return _sums(costs, None if near is None else near(index))

    def unlabeled(embeddings: Tensor, places: Tensor, anchors: Tensor) -> Tensor:
        costs = of_others(-math.log(2) * _powers(embeddings, anchors, factor))
        return _sums(costs, None if near_unlabeled is None else near_unlabeled(places))

    pixels = instances.embeddings, instances.index
    sums = sum_over_pixels(labeled, pixels, (anchors,), width=len(anchors))
    if instances.unlabeled is not None:
        assert instances.unlabeled_places is not None
        rest = instances.unlabeled, instances.unlabeled_places
        sums = sums + sum_over_pixels(unlabeled, rest, (anchors,), width=len(anchors))
    costs, numbers = sums
    return mean_or_zero(costs / numbers)


def instance_anchors(instances: Instances, anchor: str) -> Tensor:
    """(C, D): the embedding of a random pixel of each instance ("random"), or its mean ("mean")."""
    if anchor == "random":
        return instances.embeddings[instances.random_pixels()]
    return instances.means


NearPixels = Callable[[Tensor], Tensor]


def _near(instances: Instances, dtype: torch.dtype) -> tuple[NearPixels | None, NearPixels | None]:
    """(C, n), 1 where a pixel counts for an instance and 0 elsewhere: of n labeled pixels, from
    their instances (n,), and of n unlabeled ones, from their places (n,). None: all count."""
    boxes = instances.neighbourhood
    if boxes is None:
        return None, None
    return partial(boxes.pairs().to(dtype).index_select, 1), partial(boxes.pixels, dtype=dtype)


def _of_part(near: NearPixels | None, pixels: Tensor) -> Near | None:
    return None if near is None else lambda part: near(pixels[part])


def _sums(costs: Tensor, near: Tensor | None) -> Tensor:
    """(2, C): the sums of (C, n) costs over the pixels that count, and how many these are."""
    counted = torch.ones_like(costs) if near is None else near
    return torch.stack([(costs * counted).sum(1), counted.sum(1)])


def _factor(delta_v: float, t: float) -> float:
    """-1 / (2 sigma^2 ln 2): log2 S = factor |e - a|^2."""
    return math.log2(t) / delta_v**2


def _powers(embeddings: Tensor, anchors: Tensor, factor: float) -> Tensor:
    """log2 S_k(i), (C, N), at most 0.

    Powers of 2, since exp takes ten to thirty times as long on a CPU where its result is 0 or
    nearly so, as it is for most pixels; exp2 does not.
    """
    result = powers(embeddings, anchors, factor)
    with torch.no_grad():
        result.clamp_(max=0)  # positive by rounding only: nothing for the gradient, which is slow
    return result
