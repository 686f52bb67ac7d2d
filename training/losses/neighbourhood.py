"""Which instances, and which pixels, are close to an instance: those around its bounding box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Neighbourhood:
    """The bounding boxes of C instances in a patch, and the gap across which they are neighbours.

    One axis, gap 2::

        instance k        |-----|
        near to k     . . |-----| . .
        pixel              ^ near       ^ not near

    Attributes:
        shape: (z)yx of the patch, in pixels.
        gap: largest distance in pixels, along any axis, of what is near.
        first, last: (A, C) int64, the corners of the boxes, both inside; A axes.
    """

    shape: tuple[int, ...]
    gap: int
    first: Tensor
    last: Tensor

    @classmethod
    def around(
        cls, places: Tensor, index: Tensor, number: int, *, shape: Sequence[int], gap: int
    ) -> Neighbourhood:
        """Of `number` instances; places (N,) int64, numbers of pixels in the flat patch, and index
        (N,) int64, the instance of each."""
        first, last = [], []
        for axis in torch.unravel_index(places, shape):
            far = axis.new_full((number,), max(shape))
            first.append(far.scatter_reduce(0, index, axis, "amin"))
            last.append(torch.zeros_like(far).scatter_reduce(0, index, axis, "amax"))
        return cls(tuple(shape), gap, torch.stack(first), torch.stack(last))

    def pairs(self) -> Tensor:
        """(C, C) bool: the boxes of two instances are near."""
        axes = [self._near(a, self.first[a], self.last[a]) for a in range(len(self.shape))]
        return torch.stack(axes).all(0)

    def pixels(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """(C, n), 1 where a pixel, given by its number in the flat patch, is near and 0 elsewhere.

        A pixel is near if its coordinate is near along every axis, which is looked up.
        """
        near = torch.ones((), dtype=dtype, device=places.device)
        for axis, coordinate in enumerate(torch.unravel_index(places, self.shape)):
            line = torch.arange(self.shape[axis], device=places.device)
            table = self._near(axis, line, line).to(dtype)
            near = table.index_select(1, coordinate) * near
        return near

    def _near(self, axis: int, first: Tensor, last: Tensor) -> Tensor:
        """(C, M) bool: intervals first..last, (M,), are at most `gap` away from the boxes."""
        own_first, own_last = self.first[axis][:, None], self.last[axis][:, None]
        return (own_first - last <= self.gap) & (first - own_last <= self.gap)
