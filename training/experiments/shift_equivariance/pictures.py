"""Pictures in which all instances look alike: discs on a square grid, or nothing but ones.

The grid has no end: a picture is whatever part of it one asks for, so no border gives a disc away.
One axis, spacing s, radius r; each cell of s pixels holds one disc in its middle::

    |<----- s ----->|<----- s ----->|<----- s ----->|
    |      ###      |      ###      |      ###      |     # : 1, an instance of its own
            ^ cell 0        ^ cell 1                      . : 0, background, label 0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_models.geometry import Box

Image = NDArray[np.float32]
Labels = NDArray[np.int64]

CELLS = 2**20
"""Labels count cells along x up to here, then go on with the next row of cells."""


@dataclass(frozen=True)
class Discs:
    """Discs of `radius` pixels, `spacing` pixels apart along y and x."""

    spacing: int
    radius: float

    def labels(self, box: Box) -> Labels:
        """True labels yx of a region that begins at cell 0 or later: 0, or 1 + number of a cell."""
        rows, columns = (np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True))
        y, x = (p % self.spacing - self.spacing // 2 for p in (rows, columns))
        inside = y[:, None] ** 2 + x[None, :] ** 2 <= self.radius**2
        cell = (rows // self.spacing)[:, None] * CELLS + (columns // self.spacing)[None, :]
        return np.where(inside, cell + 1, 0)

    def image(self, box: Box) -> Image:
        """The region cyx, one channel, 1 in discs; it may begin anywhere, also before cell 0."""
        shifted = box.shift([-(a // self.spacing) * self.spacing for a in box.start])
        return (self.labels(shifted) > 0).astype(np.float32)[None]

    def centres(self, cells: int) -> Labels:
        """Pixels in the middle of the first `cells` cells along one axis."""
        return np.arange(cells) * self.spacing + self.spacing // 2


@dataclass(frozen=True)
class Ones:
    """A picture of ones in which every pixel is an instance: only its place tells it apart."""

    def labels(self, box: Box) -> Labels:
        """A label of its own for each pixel yx, from 1."""
        return np.arange(1, box.size + 1).reshape(box.shape)

    def image(self, box: Box) -> Image:
        """Ones, cyx."""
        return np.ones((1, *box.shape), np.float32)


Picture = Discs | Ones
