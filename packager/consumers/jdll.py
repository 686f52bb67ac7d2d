"""How JDLL 0.6 (the library behind deepImageJ, Fiji and Icy) places tiles.

Along one axis with tiles of T and an image of S pixels::

    0         roi       2 roi    S-roi        S
    |---------|---------|-----....            |     roi = T - pad0 - pad1 pixels kept per tile
                                  |-----------|     the last one is shifted to the image's end
    pad0 = max(halo, ceil((T - S) / 2)), pad1 = max(halo, T - S - pad0), mirrored outside

Later tiles overwrite. Without a given tile one is made that holds the whole image.

Scale and offset are read as format 0.4 meant them, which is not what 0.5 means: `scale` as the
factor from input to output (in 0.5 its inverse, when the input's is 1), `offset` as pixels per side
(in 0.5 both sides together). So JDLL expects T / scale + 2 * offset pixels where the network,
described by 0.5, answers T * scale + offset, and stops: an image of 200 pixels and an offset of -40
give "120 expected, 160 answered".

Source: JDLL's TileCalculator, TileMaker, TileGrid and AxisV05, and runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from packager.consumers.placement import (
    AxisTile,
    DeclaredAxis,
    Placement,
    Refusal,
    expect_one_size_per_axis,
)

NAME = "JDLL (deepImageJ, Fiji, Icy)"

MOST_PIXELS = 3 * 4096 * 4096
"""Values of a tile (pixels x channels) above which the search for a smaller tile never ends."""

MOST_OUTPUT_BYTES = 2**31 - 1
"""Bytes of a tile's float32 answer above which the search for a smaller tile stops on a null."""


def place(
    axes: Sequence[DeclaredAxis],
    shape: Sequence[int],
    *,
    tile: Sequence[int] | None = None,
    channels: int = 1,
    output_channels: int = 1,
) -> Placement | Refusal:
    """The tiles of JDLL for an image (z)yx of `shape` pixels.

    Args:
        axes: as the package declares them.
        shape: of the image, (z)yx.
        tile: an explicit tile size (z)yx, as JDLL's programming interface takes it; the default is
            what the user interfaces use, one tile as large as the image or the fixed size.
        channels: of the network's input.
        output_channels: of its answer.

    Raises:
        GeometryError: shape, tile and axes differ in number.
    """
    expect_one_size_per_axis(axes, shape)
    tiles = list(default_tile(axes, shape) if tile is None else tile)
    if len(tiles) != len(axes):
        expect_one_size_per_axis(axes, tiles)
    if tile is None and any(axis.step for axis in axes):
        refusal = _too_large(tiles, channels, output_channels)
        if refusal is not None:
            return refusal
    triples = list(zip(axes, shape, tiles, strict=True))
    for check in (_unfit_tile, _unfit_answer):  # JDLL checks all axes before it runs the network
        for axis, size, width in triples:
            refusal = check(axis, size, width)
            if refusal is not None:
                return refusal
    placed = tuple(_tiles(axis.halo, size, width) for axis, size, width in triples)
    return Placement(NAME, tuple(shape), tuple(shape), "symmetric", placed)


def default_tile(axes: Sequence[DeclaredAxis], shape: Sequence[int]) -> tuple[int, ...]:
    """The fixed size, or the image with its halo down to a multiple of step, at most 3 images."""
    return tuple(_default_width(a, s) for a, s in zip(axes, shape, strict=True))


def _default_width(axis: DeclaredAxis, size: int) -> int:
    if axis.step == 0:
        return axis.minimum
    width = (size + 2 * axis.halo) // axis.step * axis.step
    if width > 3 * size and width - axis.step >= axis.minimum:
        width -= axis.step
    covering = math.ceil(size / axis.step) * axis.step
    if width > 3 * size and covering >= axis.minimum:
        width = covering
    return width


def _too_large(tiles: Sequence[int], channels: int, output_channels: int) -> Refusal | None:
    pixels = math.prod(tiles)
    if pixels * channels > MOST_PIXELS:
        return Refusal(
            NAME,
            "hangs",
            f"One tile of {' x '.join(map(str, tiles))} with {channels} channels has more than "
            f"{MOST_PIXELS} values; cut the image, or declare a fixed size so that it is tiled.",
        )
    if 4 * pixels * output_channels > MOST_OUTPUT_BYTES:
        return Refusal(
            NAME,
            "fails",
            f"The answer to one tile of {' x '.join(map(str, tiles))} with {output_channels} "
            "channels takes 2 GiB or more; cut the image, or declare a fixed size.",
        )
    return None


def _unfit_tile(axis: DeclaredAxis, size: int, width: int) -> Refusal | None:
    reason = ""
    if width > 3 * size:
        reason = f"is more than 3 times the image's {size}; use a larger image"
    elif axis.step == 0 and width != axis.minimum:
        reason = f"is not the declared size; use {axis.minimum}"
    elif axis.step and (width - axis.minimum) % axis.step:
        reason = (
            f"is not {axis.minimum} + n * {axis.step}; tiles are made as multiples of step, so "
            "declare a minimum that is one"
        )
    elif _expected_answer(axis, width) <= 2 * axis.halo:
        reason = f"is used up by the halo of {axis.halo} per side; use a larger tile"
    return Refusal(NAME, "refuses", f"A tile of {width} pixels {reason}.") if reason else None


def _unfit_answer(axis: DeclaredAxis, size: int, width: int) -> Refusal | None:
    if axis.scale == 1 and axis.offset == 0:
        return None
    return Refusal(
        NAME,
        "fails",
        f"A canvas of {_expected_answer(axis, size)} pixels and answers of "
        f"{_expected_answer(axis, width)} to a tile of {width} are expected, the network gives "
        f"{axis.answer(width)}; declare outputs the size of the input (offset 0, no scale).",
    )


def _expected_answer(axis: DeclaredAxis, width: int) -> int:
    return int(width / axis.scale + 2 * axis.offset)


def _tiles(halo: int, size: int, width: int) -> tuple[AxisTile, ...]:
    before = max(halo, math.ceil((width - size) / 2))
    after = max(halo, width - size - before)
    roi = width - before - after
    parts = []
    for i in range(math.ceil(size / (width - 2 * halo))):
        start = min(roi * i, size - roi)
        read = (start - before, start - before + width)
        parts.append(AxisTile(read, (before, before + roi), (start, start + roi)))
    return tuple(parts)
