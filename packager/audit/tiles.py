"""Tiles along one axis: where they should lie, which pixels are right, how wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from packager.audit.measure import MeasuredAxis
from packager.consumers.placement import AxisTile
from zoo_models.receptive_field import ValidSizes

Array = NDArray[np.float32]


def true_tiles(
    size: int, axis: MeasuredAxis, valid: ValidSizes, *, whole_only: bool
) -> tuple[AxisTile, ...] | None:
    """Tiles whose kept parts are right, see `verdicts`; None: no size of tile keeps any."""
    scale, period = axis.scale, axis.period or 1
    least = 0 if whole_only else axis.before
    shift = math.ceil((least - axis.margin / 2) / scale / period) * period
    shift = max(0, shift)
    first = math.floor(axis.margin / 2 + shift * scale)  # answers image pixel 0
    after = 0 if whole_only else axis.after
    width = math.floor(size * scale)
    tile = valid.at_least(math.ceil((first + width + after - axis.margin) / scale))
    room = math.floor(tile * scale + axis.margin) - first - after
    if room >= width:
        return (AxisTile((-shift, tile - shift), (first, first + width), (0, width)),)
    kept = math.floor(room / scale) // period * period
    if kept < 1 or whole_only or axis.period is None:
        return None
    parts = []
    for start in range(0, size, kept):
        wide = math.floor(min(kept, size - start) * scale)
        at = math.floor(start * scale)
        read = (start - shift, start - shift + tile)
        parts.append(AxisTile(read, (first, first + wide), (at, at + wide)))
    return tuple(parts)


def right_along(
    tiles: Sequence[AxisTile], size: int, axis: MeasuredAxis, canvas: int
) -> NDArray[np.bool_]:
    """Which pixels of the canvas along one axis come from a tile that can know them."""
    right = np.zeros(canvas, bool)
    centre = (canvas - size * axis.scale) / 2
    for tile in tiles:
        start, stop = tile.read
        (a, b), (to, end) = tile.crop, tile.write
        known = axis.right(stop - start)
        # canvas pixel `to` and answer pixel `a` must be the same place of the image
        there = start + (a - axis.margin / 2) / axis.scale == (to - centre) / axis.scale
        aligned = start % axis.period == 0 if axis.period else len(tiles) == 1
        fits = b <= len(known) and b - a == end - to and a >= 0 and end <= canvas
        right[max(to, 0) : end] = known[a:b] if there and aligned and fits else False
    return right


def gap_to(tiled: Array, truth: Array) -> Array:
    """(z)yx: largest difference over the channels, in standard deviations of the truth's channel.

    A canvas of another size is compared where both lie on the image, its corner at the corner.
    """
    common = tuple(min(a, b) for a, b in zip(tiled.shape[1:], truth.shape[1:], strict=True))
    part = tuple(slice(0, n) for n in common)
    spread = truth.reshape(len(truth), -1).std(axis=1)
    spread = np.maximum(spread, 1e-6 * max(float(spread.max()), 1e-6))
    difference = np.abs(tiled[:, *part] - truth[:, *part])
    difference /= spread.reshape([-1] + [1] * len(common))
    return np.asarray(np.nan_to_num(difference, nan=np.inf).max(axis=0), np.float32)
