"""What the Dice loss needs of C soft masks over N pixels, with its gradient written down by hand.

    S_k(i) = exp2(factor |e_i - a_k|^2)                  factor = log2(t) / delta_v^2, negative
    overlap_k = sum of S_k(i) over the pixels i of k     (C,)
    squares_k = sum of S_k(i)^2 over the near pixels     (C,)

With u and v the loss's slopes for overlap_k and squares_k, that for factor |e_i - a_k|^2 is

    G_k(i) = ln 2 (u_k S_k(i) [i is of k] + 2 v_k S_k(i)^2 [i is near k])

and, since the slope of |e_i - a_k|^2 is 2 (e_i - a_k) for e_i and the opposite for a_k,

    for e_i   2 factor (e_i sum_k G_k(i) - sum_k G_k(i) a_k)
    for a_k   2 factor (a_k sum_i G_k(i) - sum_i G_k(i) e_i)

(C, N) matrices are what the loss costs. Automatic differentiation goes over them three times as
often and takes fresh memory for each, which the system hands out page by page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.losses import chunks

Near = Callable[[slice], Tensor]
"""(C, n) of the embeddings' type: 1 where a pixel of the slice counts for an instance, else 0."""


def mask_sums(
    embeddings: Tensor, anchors: Tensor, index: Tensor | None, near: Near | None, factor: float
) -> Tensor:
    """(2, C): overlap and squares.

    Args:
        embeddings: (N, D).
        anchors: (C, D).
        index: (N,) int64, the instance of each pixel; None: of none, and the overlap is 0.
        near: None: every pixel counts for every instance.
        factor: as above.
    """
    apply: Any = _MaskSums.apply
    sums: Tensor = apply(embeddings, anchors, index, near, factor)
    return sums


class _MaskSums(torch.autograd.Function):
    """Pixels in chunks, all in one piece of memory; the gradient computes each matrix again, which
    is faster than to keep it."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        anchors: Tensor,
        index: Tensor | None,
        near: Near | None,
        factor: float,
    ) -> Tensor:
        ctx.save_for_backward(embeddings, anchors, index)
        ctx.parts = chunks.parts(len(embeddings), len(anchors))
        ctx.near, ctx.factor = near, factor
        room = anchors.new_empty(len(anchors), ctx.parts[0].stop)
        sums = anchors.new_zeros(2, len(anchors))
        for part in ctx.parts:
            own, squares = _masks(room, embeddings, anchors, index, near, factor, part)
            if index is not None:
                sums[0].index_add_(0, index[part], own)
            sums[1] += squares.sum(1)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(slopes.device.type, enabled=False):
            return *_MaskSums._gradients(ctx, slopes * math.log(2)), None, None, None

    @staticmethod
    def _gradients(ctx: Any, slopes: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, anchors, index = ctx.saved_tensors
        of_pixels, of_anchors = torch.empty_like(embeddings), torch.zeros_like(anchors)
        room = anchors.new_empty(len(anchors), ctx.parts[0].stop)
        for part in ctx.parts:
            own, g = _masks(room, embeddings, anchors, index, ctx.near, ctx.factor, part)
            g *= 2 * slopes[1][:, None]
            if index is not None:
                ids = index[part]
                g.scatter_add_(0, ids[None], (own * slopes[0][ids])[None])
            e = embeddings[part]
            of_pixels[part] = e * g.sum(0)[:, None] - g.T @ anchors
            of_anchors += anchors * g.sum(1, keepdim=True) - g @ e
        return of_pixels.mul_(2 * ctx.factor), of_anchors.mul_(2 * ctx.factor)


def _masks(
    room: Tensor,
    embeddings: Tensor,
    anchors: Tensor,
    index: Tensor | None,
    near: Near | None,
    factor: float,
    part: slice,
) -> tuple[Tensor, Tensor]:
    """S of the pixels' own instances, (n,), and in `room` S^2 where a pixel counts, (C, n)."""
    left, right = _factors(embeddings[part], anchors, factor)
    masks = torch.mm(left, right.T, out=room[:, : len(right)]).exp2_()
    own = masks.new_empty(0) if index is None else masks.gather(0, index[part][None])[0]
    squares = masks.square_()
    if near is not None:
        squares *= near(part)
    return own, squares


def powers(embeddings: Tensor, anchors: Tensor, factor: float) -> Tensor:
    """factor |e_i - a_k|^2, (C, n)."""
    left, right = _factors(embeddings, anchors, factor)
    return left @ right.T


def _factors(embeddings: Tensor, anchors: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(C, D + 2) and (n, D + 2), whose product holds factor (|a|^2 + |e|^2 - 2 a e)."""
    a_squared = (anchors**2).sum(1, keepdim=True)
    e_squared = torch.linalg.vecdot(embeddings, embeddings)[:, None]
    left = torch.cat([-2 * anchors, a_squared, torch.ones_like(a_squared)], dim=1) * factor
    return left, torch.cat([embeddings, torch.ones_like(e_squared), e_squared], dim=1)
