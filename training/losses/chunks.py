"""Sums over pixels, chunk by chunk: memory does not grow with instances times pixels.

Many terms compare every instance with every pixel. A (C, N) matrix of 200 instances and 512 x 512 x
16 pixels has 3.4 GB, and the gradient needs several. So only a part of the pixels is compared at a
time, and of a large patch what the gradient needs is computed again when the gradient is::

    pixels      |--- n ---|--- n ---|--- n ---|-- rest --|        n = CHUNK / width
    compared    (C, n)     (C, n)    (C, n)    (C, rest)
    summed      (C,)   +   (C,)  +   (C,)  +   (C,)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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
    length = max(1, CHUNK // max(1, width))
    chunks = zip(*(tensor.split(length) for tensor in pixels), strict=True)
    if len(pixels[0]) * width <= KEPT:
        sums = [function(*chunk, *shared) for chunk in chunks]
    else:
        sums = [
            checkpoint(function, *chunk, *shared, use_reentrant=False, preserve_rng_state=False)
            for chunk in chunks
        ]
    return torch.stack(sums).sum(0)
