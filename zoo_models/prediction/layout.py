"""Tile and block, chosen together: the fastest that fit into the memory.

A block is computed with MARGIN pixels more on each side (fragments.py), in tiles of one size that
begin on the period's grid; every tile reads its halo beside what it keeps::

    margin|<------------------ block ------------------>|margin
    |<------------------------- kept ------------------------>|      one tile, just large enough
    |<----------- kept ----------->|<----------- kept ----------->|  or two, each with its halo

So a tile that keeps a few pixels less than its block may cost half as much again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry
from zoo_models.prediction.calibration import Calibration
from zoo_models.prediction.engine import AxisTiles
from zoo_models.prediction.fragments import MARGIN

LARGEST_TILE = {2: 2048, 3: 256}
"""Edge of the largest tile that is chosen, by number of space axes."""

CLOSE = 1.03
"""What takes at most so much longer than the fastest is as good, and the one with the least memory
is taken: smaller blocks lose less where a run is cut, and are shared out better."""

NOISE = 1.1
"""Times of single tiles tell no smaller difference than this."""

GPU_PIXELS = 2**20
"""Pixels in one call that keep a GPU busy; smaller tiles go in batches."""


@dataclass(frozen=True)
class Layout:
    """How an image is computed.

    tile: (z)yx pixels at most, `batch` of them at a time. block: (z)yx pixels.
    seconds: for all tiles of the image. bytes: of this process, for the network and the blocks.
    """

    tile: tuple[int, ...]
    batch: int
    block: tuple[int, ...]
    seconds: float
    bytes: int


def choose_layout(
    calibration: Calibration,
    geometry: TileGeometry,
    shape: Sequence[int],
    blocks: Sequence[tuple[int, ...]],
    block_bytes: Callable[[tuple[int, ...]], int],
    memory_bytes: int,
    *,
    limit: int | None = None,
) -> Layout:
    """The fastest layout, or the smallest of those that are nearly as fast.

    Args:
        blocks: to choose from. block_bytes: what all blocks in work take.
        memory_bytes: what network and blocks may take, at least `least_bytes`. On a GPU, the
            network takes what is free there instead.
        limit: tiles have no more pixels along any axis.

    Raises:
        InputError: the smallest tile does not fit into the GPU, or nothing into the memory.
    """
    gpu, fitting = calibration.gpu_bytes, []
    for block in blocks:
        room = memory_bytes - block_bytes(block)
        boxes = [_boxes(n, b) for n, b in zip(shape, block, strict=True)]
        limits = _tiles(calibration, geometry, shape, limit)
        for tile in dict.fromkeys(_used(geometry, boxes, most) for most in limits):
            peak = calibration.peak_bytes(tile)
            if room < (peak if gpu is None else 0) or peak > (gpu or math.inf):
                break
            batch = 1  # keeps a processor busy
            if gpu is not None:
                batch = max(1, min(gpu // max(1, peak), GPU_PIXELS // math.prod(tile)))
            seconds = network_seconds(calibration, geometry, shape, block, tile)
            taken = block_bytes(block) + (peak if gpu is None else 0)
            fitting.append(Layout(tile, batch, block, seconds, taken))
    if not fitting:
        least = calibration.peak_bytes(geometry.minimum)
        raise InputError(
            f"The network needs {least / 2**20:.0f} MiB for its smallest tile of "
            f"{' x '.join(map(str, geometry.minimum))} pixels, more than is free for it; close "
            "other programs, or take --device cpu."
        )
    fastest = min(layout.seconds for layout in fitting)
    good = [layout for layout in fitting if layout.seconds <= CLOSE * fastest]
    return min(good, key=lambda layout: layout.bytes)


def least_bytes(calibration: Calibration, geometry: TileGeometry, smallest_block: int) -> int:
    """What this process needs for the smallest tile, beside so many bytes for blocks."""
    on_gpu = calibration.gpu_bytes is not None
    return smallest_block + (0 if on_gpu else calibration.peak_bytes(geometry.minimum))


def network_seconds(
    calibration: Calibration,
    geometry: TileGeometry,
    shape: Sequence[int],
    block: Sequence[int],
    tile: Sequence[int],
) -> float:
    """For all tiles of all blocks: costs are products over axes, so their sums are, too."""
    paid = calibration.time.per_pixel
    for axis, size, edge, most in zip(geometry.axes, shape, block, tile, strict=True):
        lost = calibration.time.excess * 2 * axis.halo
        boxes = [(AxisTiles.covering(a, b, axis, most), n) for a, b, n in _boxes(size, edge)]
        paid *= sum(number * tiles.count * (tiles.tile - lost) for tiles, number in boxes)
    return paid


def _boxes(size: int, block: int) -> list[tuple[int, int, int]]:
    """What blocks compute along an axis: start, stop, and how many there are of its kind."""
    count = math.ceil(size / block)
    if count == 1:
        return [(0, size, 1)]
    last = (count - 1) * block
    found = [(0, min(block + MARGIN, size), 1), (last - MARGIN, size, 1)]
    if count > 2:
        found.append((block - MARGIN, min(2 * block + MARGIN, size), count - 2))
    return found


def _tiles(
    calibration: Calibration,
    geometry: TileGeometry,
    shape: Sequence[int],
    limit: int | None,
) -> Iterator[tuple[int, ...]]:
    """Limits for tiles, from the smallest on, growing along the shortest axes that still may."""
    most = _largest_worth(calibration, geometry, shape, limit)
    tile = geometry.minimum
    yield tile
    while tile != most:
        shortest = min(t for t, m in zip(tile, most, strict=True) if t < m)
        tile = tuple(
            t + axis.step if t < m and t == shortest else t
            for t, m, axis in zip(tile, most, geometry.axes, strict=True)
        )
        yield tile


def _largest_worth(
    calibration: Calibration,
    geometry: TileGeometry,
    shape: Sequence[int],
    limit: int | None,
) -> tuple[int, ...]:
    """The edges (z)yx beyond which a tile does not grow."""
    largest = [axis.largest_tile(limit or LARGEST_TILE[geometry.ndim]) for axis in geometry.axes]
    whole = [a.smallest_tile(size) for a, size in zip(geometry.axes, shape, strict=True)]
    bounds = [largest, whole]
    if calibration.measured:
        # where larger arrays are slower (fresh pages for each), the fit does not tell
        cost = calibration.seconds_per_kept_pixel
        cheapest, last = min(calibration.measured, key=cost), calibration.measured[-1]
        if cost(last) > NOISE * cost(cheapest):
            bounds.append(list(cheapest.tile))
    return tuple(map(min, zip(*bounds, strict=True)))


def _used(
    geometry: TileGeometry, boxes: Sequence[Sequence[tuple[int, int, int]]], limits: tuple[int, ...]
) -> tuple[int, ...]:
    """The largest tile that is used under these limits: tiles of a box are even."""
    return tuple(
        max(AxisTiles.covering(a, b, axis, most).tile for a, b, _ in along)
        for axis, along, most in zip(geometry.axes, boxes, limits, strict=True)
    )
