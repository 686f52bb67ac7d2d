"""Which boxes of an image are read and written, one block after the other.

Write boxes partition the image: each pixel is written once. Every write box starts on a multiple of
the network's period; a last block that does not fill its tile reads beyond the image, where the
image is mirrored, and is never shifted back: a shifted tile is off the grid, other values come out.

    image    0                                                     S
    write    |<------ B ------>|<------ B ------>|<----- rest ---->|
    read  H--|-----------------|--H
                            H--|-----------------|--H
                                              H--|-----------------|xxxx--H   x: mirrored
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError
from zoo_models.geometry import Box, TileGeometry


@dataclass(frozen=True)
class Block:
    """One tile's work. `read` may reach beyond the image; `write` never does.

    `keep` is the part of the tile's output that belongs into `write`, in the tile's coordinates.
    """

    index: tuple[int, ...]
    read: Box
    write: Box

    @property
    def keep(self) -> Box:
        return self.write.relative_to(self.read.start)


@dataclass(frozen=True)
class BlockGrid:
    """All blocks of an image of `shape`, for tiles of at most `tile` pixels per axis."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    geometry: TileGeometry

    def __post_init__(self) -> None:
        if len(self.shape) != self.geometry.ndim or len(self.tile) != self.geometry.ndim:
            raise GeometryError(
                f"Image shape {self.shape} and tile {self.tile} must have one entry for each of "
                f"the network's axes {self.geometry.names!r}."
            )
        for axis, tile in zip(self.geometry.axes, self.tile, strict=True):
            axis.kept(tile)

    @classmethod
    def covering(
        cls, shape: Sequence[int], geometry: TileGeometry, *, tile_limit: int | Sequence[int]
    ) -> BlockGrid:
        """The grid with the largest tiles within `tile_limit`, and none larger than needed."""
        limits = [tile_limit] * geometry.ndim if isinstance(tile_limit, int) else tile_limit
        tile = tuple(
            min(axis.largest_tile(limit), axis.smallest_tile(size))
            for axis, limit, size in zip(geometry.axes, limits, shape, strict=True)
        )
        return cls(tuple(shape), tile, geometry)

    @property
    def kept(self) -> tuple[int, ...]:
        """Width of a full write box per axis: the distance between block starts."""
        return tuple(
            axis.kept(tile) for axis, tile in zip(self.geometry.axes, self.tile, strict=True)
        )

    def __len__(self) -> int:
        return math.prod(math.ceil(n / k) for n, k in zip(self.shape, self.kept, strict=True))

    def __iter__(self) -> Iterator[Block]:
        counts = [math.ceil(n / k) for n, k in zip(self.shape, self.kept, strict=True)]
        for index in itertools.product(*map(range, counts)):
            yield self.block(index)

    def block(self, index: tuple[int, ...]) -> Block:
        start = tuple(i * k for i, k in zip(index, self.kept, strict=True))
        stop = tuple(min(a + k, n) for a, k, n in zip(start, self.kept, self.shape, strict=True))
        write = Box(start, stop)
        tile = tuple(  # a last block may do with a smaller tile
            axis.smallest_tile(n) for axis, n in zip(self.geometry.axes, write.shape, strict=True)
        )
        read_start = tuple(a - h for a, h in zip(start, self.geometry.halo, strict=True))
        read = Box(read_start, tuple(a + t for a, t in zip(read_start, tile, strict=True)))
        return Block(index, read, write)


def read_mirrored(image: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """The pixels of `box` from an image c(z)yx; beyond its border the image is mirrored.

    Mirrored as numpy's "symmetric" padding does, the border pixel twice, as often as needed. This
    is the padding of bioimageio.core and JDLL. Returns a new array c(z)yx.
    """
    for axis, (start, stop, size) in enumerate(
        zip(box.start, box.stop, image.shape[1:], strict=True), start=1
    ):
        position = np.arange(start, stop) % (2 * size)
        image = np.take(image, np.minimum(position, 2 * size - 1 - position), axis=axis)
    return image
