"""Run a network under a consumer's placement: cut, pad, run, crop, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packager.consumers.placement import Padding, Placement
from zoo_models.geometry import Box
from zoo_models.prediction.blocks import read_mirrored

Array = NDArray[np.float32]
Run = Callable[[Array], Array]
"""What a consumer does with one tile: c(z)yx raw values in, channels(z)yx out, both float32."""


@dataclass(frozen=True)
class Stitched:
    """The output canvas, channels(z)yx, NaN where nothing was written.

    `failed` are the tiles (number in order) whose answer did not fit the box it was to be written
    to; their consumer stops there, the others are still run here to be looked at.
    """

    output: Array
    failed: tuple[int, ...]


def stitch(run: Run, image: Array, placement: Placement) -> Stitched:
    """The output of `placement` for an image c(z)yx of raw values."""
    canvas: Array | None = None
    failed = []
    for number, tile in enumerate(placement):
        answer = run(read_padded(image, tile.read, placement.padding))
        if canvas is None:
            canvas = np.full((len(answer), *placement.output), np.nan, np.float32)
        inside = Box.of_shape(answer.shape[1:]).contains(tile.crop)
        if inside and tile.crop.shape == tile.write.shape:
            canvas[:, *tile.write.slices] = answer[:, *tile.crop.slices]
        else:
            failed.append(number)
    if canvas is None:
        canvas = np.full((0, *placement.output), np.nan, np.float32)
    return Stitched(canvas, tuple(failed))


def read_padded(image: Array, box: Box, padding: Padding) -> Array:
    """The pixels of `box` from an image c(z)yx, with numpy's padding beyond its border."""
    if padding == "symmetric":
        return read_mirrored(image, box)
    for axis, (start, stop, size) in enumerate(
        zip(box.start, box.stop, image.shape[1:], strict=True), start=1
    ):
        period = max(1, 2 * (size - 1))
        position = np.arange(start, stop) % period
        image = np.take(image, np.minimum(position, period - position), axis=axis)
    return image
