"""Run a network over an image of any size, tile by tile, into embeddings: all of it or of a box.

Tiles lie on the period's grid and keep multiples of the period, so neither the tile size nor the
box shows in the result. Boxes need not lie on the grid, their tiles do::

    period     |       |       |       |       |       |       |       |
    box                    |------------------------|
    covered            |---------------|---------------|xxxxxxx       even tiles, from grid to grid
    read          H----|---------------|---------------|----H         what both tiles read

The image is mirrored at its own border only, where the box's tiles reach beyond it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.errors import GeometryError
from zoo_models.geometry import AxisTiling, Box, TileGeometry
from zoo_models.prediction.blocks import BlockGrid, read_mirrored

Network = Callable[[torch.Tensor], torch.Tensor]
"""(1, C, [Z,] Y, X) float32 -> (1, D, [Z,] Y, X) float32, of the input's size."""

Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, C, [Z,] Y, X) float32 -> (N, D, [Z,] Y, X) float32, which the next call may overwrite."""

TILE_LIMIT = {2: 1024, 3: 160}
"""Largest tile edge by number of space axes, unless the caller knows better."""


def predict_embeddings(
    network: Network,
    image: NDArray[np.float32],
    grid: BlockGrid,
    *,
    embedding_dim: int,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Embeddings D(z)yx of an image c(z)yx whose values are already normalised.

    Equal to one pass over the whole (mirrored) image, whatever the tile size: the grid's tiles keep
    multiples of the period, on the period's grid. `progress` gets (blocks done, blocks).
    """
    embeddings = np.empty((embedding_dim, *grid.shape), np.float32)
    with torch.inference_mode():
        for done, block in enumerate(grid, start=1):
            tile = torch.from_numpy(read_mirrored(image, block.read)[None]).to(device)
            output = network(tile)[0].float().cpu().numpy()
            embeddings[:, *block.write.slices] = output[:, *block.keep.slices]
            if progress is not None:
                progress(done, len(grid))
    return embeddings


@dataclass(frozen=True)
class AxisTiles:
    """The tiles of a box along one axis: `count` of `tile` pixels, keeping `kept` each.

    start: first kept pixel of the first tile, a multiple of the period.
    """

    start: int
    count: int
    tile: int
    kept: int
    halo: int

    @classmethod
    def covering(cls, start: int, stop: int, axis: AxisTiling, limit: int) -> AxisTiles:
        """The fewest tiles of at most `limit` pixels, then the smallest that do it."""
        first = start // axis.period * axis.period
        size = axis.padded(stop) - first
        count = math.ceil(size / axis.kept(axis.largest_tile(limit)))
        tile = axis.smallest_tile(math.ceil(size / count))
        return cls(first, math.ceil(size / axis.kept(tile)), tile, axis.kept(tile), axis.halo)

    def positions(self, size: int) -> NDArray[np.intp]:
        """Pixels of an image of `size` that the tiles read, one after the other, mirrored."""
        begin = self.start - self.halo
        length = (self.count - 1) * self.kept + self.tile
        position = np.arange(begin, begin + length) % (2 * size)
        return np.minimum(position, 2 * size - 1 - position)


def tiles_of(box: Box, geometry: TileGeometry, *, tile: Sequence[int]) -> tuple[AxisTiles, ...]:
    """The tiles that `embeddings_of` computes for a box, per axis (z)yx.

    Raises:
        GeometryError: an empty box, or a tile smaller than the network's smallest.
    """
    small = [t < axis.minimum for t, axis in zip(tile, geometry.axes, strict=True)]
    if any(small) or not box.size:
        raise GeometryError(
            f"A box of {box.shape} pixels in tiles of {tuple(tile)}: expected at least one pixel, "
            f"and tiles of {geometry.minimum} or more."
        )
    return tuple(
        AxisTiles.covering(a, b, axis, limit)
        for a, b, axis, limit in zip(box.start, box.stop, geometry.axes, tile, strict=True)
    )


def embeddings_of(
    hold: Callable[[], AbstractContextManager[Runner]],
    read: Callable[[Box], NDArray[np.float32]],
    box: Box,
    shape: Sequence[int],
    geometry: TileGeometry,
    *,
    tile: Sequence[int],
    batch: int,
    embedding_dim: int,
) -> NDArray[np.float32]:
    """Embeddings D(z)yx, float32, of a box within an image of `shape` (z)yx.

    Equal to those of `predict_embeddings` on the whole image. The same box, tile, batch and engine
    give the same bytes, whatever was computed before.

    Args:
        hold: an engine, while its answer is in use; it runs `batch` tiles, fewer at the end.
        read: gives the normalised pixels c(z)yx of a box within the image; called once.
        tile: largest tile (z)yx; the tiles of a box are all of one size.

    Beside the engine's own memory: the pixels that were read, and the embeddings of the box.

    Raises:
        GeometryError: a box that is empty or leaves the image, or too small a tile.
    """
    if not Box.of_shape(shape).contains(box):
        raise GeometryError(f"{box} leaves the image of {tuple(shape)} pixels; give one inside.")
    axes = tiles_of(box, geometry, tile=tile)
    positions = [a.positions(size) for a, size in zip(axes, shape, strict=True)]
    needed = Box(tuple(int(p.min()) for p in positions), tuple(int(p.max()) + 1 for p in positions))
    pixels = read(needed)
    places = [p - start for p, start in zip(positions, needed.start, strict=True)]
    embeddings = np.empty((embedding_dim, *box.shape), np.float32)
    for some in _batches(itertools.product(*(range(a.count) for a in axes)), batch):
        tiles = np.stack([_cut(pixels, places, axes, index) for index in some])
        with hold() as engine:
            for index, output in zip(some, engine(tiles), strict=True):
                write, keep = _placed(box, axes, index)
                embeddings[:, *write.slices] = output[:, *keep.slices]
    return embeddings


def _placed(box: Box, axes: Sequence[AxisTiles], index: Sequence[int]) -> tuple[Box, Box]:
    """What the tile at `index` gives to the box: in the box's coordinates, and in the tile's."""
    start = tuple(a.start + i * a.kept for a, i in zip(axes, index, strict=True))
    kept = Box(start, tuple(s + a.kept for s, a in zip(start, axes, strict=True)))
    write = kept.intersect(box)
    tile_start = [s - a.halo for s, a in zip(start, axes, strict=True)]
    return write.relative_to(box.start), write.relative_to(tile_start)


def _batches(
    tiles: itertools.product[tuple[int, ...]], batch: int
) -> itertools.chain[list[tuple[int, ...]]]:
    return itertools.chain(iter(lambda: list(itertools.islice(tiles, batch)), []))


def _cut(
    pixels: NDArray[np.float32],
    places: Sequence[NDArray[np.intp]],
    axes: Sequence[AxisTiles],
    index: tuple[int, ...],
) -> NDArray[np.float32]:
    """The tile at `index`, c(z)yx, of the pixels that were read."""
    rows = [
        place[i * a.kept : i * a.kept + a.tile]
        for place, a, i in zip(places, axes, index, strict=True)
    ]
    return pixels[np.ix_(np.arange(len(pixels)), *rows)]
