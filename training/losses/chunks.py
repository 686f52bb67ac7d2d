"""Sums over pixels, chunk by chunk: memory does not grow with instances times pixels.

Many terms compare every instance with every pixel. A (C, N) matrix of 200 instances and 512 x 512 x
16 pixels has 3.4 GB, and the gradient needs several. So only a part of the pixels is compared at a
time, and of a large patch what the gradient needs is computed again when the gradient is::

    pixels      |--- n ---|--- n ---|--- n ---|-- rest --|        n = CHUNK / width
    compared    (C, n)     (C, n)    (C, n)    (C, rest)
    summed      (C,)   +   (C,)  +   (C,)  +   (C,)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 1 << 18
"""Numbers in the largest matrix of a chunk: 1 MiB of float32, which a processor's cache holds."""

KEPT = 1 << 22
"""Numbers up to which a matrix of all pixels is kept for the gradient, which is then faster."""


def sum_over_pixels(
    function: Callable[..., Tensor], pixels: Sequence[Tensor], shared: Sequence[Tensor], width: int
) -> Tensor:
    """function(*pixels, *shared), which must be a sum over pixels: (..., C).

    Args:
        function: of tensors alone, deterministic.
        pixels: tensors whose first axis is that of the pixels, as long in all; the function sees
            one chunk of each.
        shared: what it sees whole.
        width: numbers per pixel of the largest matrix that it makes, such as C.
    """
    number = len(pixels[0])
    slices = parts(number, width)
    if number * width <= KEPT:
        return _sum_of(function(*(p[part] for p in pixels), *shared) for part in slices)
    apply: Any = _Recomputed.apply
    sums: Tensor = apply(function, slices, len(pixels), *pixels, *shared)
    return sums


def parts(number: int, width: int) -> list[slice]:
    """The chunks of `number` pixels, one at least, for `width` numbers per pixel."""
    length = max(1, CHUNK // max(1, width))
    return [slice(start, start + length) for start in range(0, max(1, number), length)]


class _Recomputed(torch.autograd.Function):
    """The sum over chunks; their graphs are made, used and dropped one by one in backward.

    torch.utils.checkpoint would do, but its gradients of all chunks lie in memory in many pieces
    before they become one tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], parts: list[slice], number: int, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.parts, ctx.number = function, parts, number
        pixels, shared = tensors[:number], tensors[number:]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return _sum_of(function(*(p[part] for p in pixels), *shared) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        gradients = [
            torch.zeros_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)
        ]
        for part in ctx.parts:
            sliced = [part] * ctx.number + [slice(None)] * (len(tensors) - ctx.number)
            given = [t.detach()[s] for t, s in zip(tensors, sliced, strict=True)]
            inputs = [t.requires_grad_() for t, w in zip(given, wanted, strict=True) if w]
            with torch.enable_grad(), torch.autocast(slope.device.type, enabled=False):
                found = iter(torch.autograd.grad(ctx.function(*given), inputs, slope))
            for gradient, place in zip(gradients, sliced, strict=True):
                if gradient is not None:
                    gradient[place] += next(found)
        return None, None, None, *gradients


def _sum_of(values: Iterator[Tensor]) -> Tensor:
    """The sum of one tensor or more of the same shape."""
    total = next(values)
    for value in values:
        total = total + value
    return total
