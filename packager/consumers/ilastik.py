"""How ilastik 1.4.2 with tiktorch 26.5 places tiles.

Along one axis with tiles of T, kept parts of B = T - 2 halo and an image of S pixels::

    0        B        2B       3B   S
    |--------|--------|--------|----|           blocks start at 0, B, 2B, ...; the last has r pixels
                 |--- before ---|----|-- after --|          and reads T pixels with r in the middle:
                                              before = halo + ceil((B - r) / 2), after = the rest

so with B a multiple of 2P the last tile is on the period grid P only when S, divided by 2P, leaves
0 (or 1, by the rounding), or when B divides S. Scale and offset of the output are
ignored: answers are cropped where the block lies in what was read.

Source: lazyflow's operators for tiktorch (OpTikTorchClassifierPredict, OpBlockShape), and runs.
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
    format_fault,
)

NAME = "ilastik"

TARGETS = {2: 512, 3: 64}
"""Width that tiles should reach, by the number of space axes."""

MESSAGE_BYTES = 100 * 1024 * 1024
"""Largest message between ilastik and tiktorch; a tile travels whole, both ways, as float32."""


def place(
    axes: Sequence[DeclaredAxis],
    shape: Sequence[int],
    *,
    target: int | None = None,
    channels: int = 1,
) -> Placement | Refusal:
    """The blocks of ilastik's cache for an image (z)yx of `shape` pixels.

    Args:
        axes: as the package declares them.
        shape: of the image, (z)yx.
        target: width that tiles should reach (default: 512 in 2D, 64 in 3D).
        channels: of the network's input or answer, whichever has more.

    Raises:
        GeometryError: shape and axes differ in number.
    """
    expect_one_size_per_axis(axes, shape)
    if fault := format_fault(axes):
        return Refusal(NAME, "refuses", f"The description is invalid: {fault}.")
    tiles = tile_sizes(axes, target=target)
    if any(t <= 2 * a.halo for a, t in zip(axes, tiles, strict=True)):
        reason = f"Tiles of {tiles} are used up by their halo; declare a larger minimum."
        return Refusal(NAME, "fails", reason)
    message = 4 * channels * math.prod(tiles)
    if message >= MESSAGE_BYTES:  # the message's own header comes on top
        return Refusal(
            NAME,
            "fails",
            f"A tile of {channels} x {' x '.join(map(str, tiles))} float32 values is a message of "
            f"{message / 2**20:.1f} MiB; the limit is 100 MiB: declare smaller tiles or fewer "
            "channels.",
        )
    placed = tuple(_blocks(a.halo, s, t) for a, s, t in zip(axes, shape, tiles, strict=True))
    return Placement(NAME, tuple(shape), tuple(shape), "reflect", placed)


def tile_sizes(axes: Sequence[DeclaredAxis], *, target: int | None = None) -> tuple[int, ...]:
    """minimum + n * step with one n for all axes: the first that brings any of them to `target`."""
    target = TARGETS[len(axes)] if target is None else target
    ns = [max(0, math.ceil((target - a.minimum) / a.step)) for a in axes if a.step]
    return tuple(a.minimum + min(ns, default=0) * a.step for a in axes)


def _blocks(halo: int, size: int, tile: int) -> tuple[AxisTile, ...]:
    kept = tile - 2 * halo
    parts = []
    for start in range(0, size, kept):
        width = min(kept, size - start)
        before = halo + math.ceil((kept - width) / 2)
        read = (start - before, start - before + tile)
        parts.append(AxisTile(read, (before, before + width), (start, start + width)))
    return tuple(parts)
