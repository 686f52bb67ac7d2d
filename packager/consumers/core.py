"""How bioimageio.core 0.11 places tiles.

Blockwise, along one axis with tiles of T, kept parts of B = T - 2 halo and an image of S pixels::

    0        B        2B            S-B       S
    |--------|--------|--------|.....         |     full blocks start at 0, B, 2B, ...
                                     |--------|     the last one is shifted back to the image's end
    <halo|        |halo>                            each reads halo more per side, mirrored outside

The shifted block is on the period grid only when S is. How wide a block's answer is expected to be
does not depend on the `offset`, so every offset ends in an error.

Source: bioimageio.core 0.11, block_meta.py, digest_spec.py, _prediction_pipeline.py, tensor.py.
"""

from __future__ import annotations

import itertools
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

NAME = "bioimageio.core"

DEFAULT_N = 10
"""The blocksize parameter when none is given."""


def place(
    axes: Sequence[DeclaredAxis], shape: Sequence[int], *, n: int | Sequence[int] = DEFAULT_N
) -> Placement | Refusal:
    """The blocks of `predict_sample_with_blocking` for an image (z)yx of `shape` pixels.

    `n` makes tiles of minimum + n * step; one for all axes or one per axis. The single number 0
    counts as not given there, so it means 10 here too; a 0 per axis is kept.

    Raises:
        GeometryError: shape and axes differ in number.
    """
    expect_one_size_per_axis(axes, shape)
    if fault := format_fault(axes):
        return Refusal(NAME, "refuses", f"The description is invalid: {fault}.")
    ns = [n or DEFAULT_N] * len(axes) if isinstance(n, int) else n
    tiles = [a.minimum + k * a.step for a, k in zip(axes, ns, strict=True)]
    if any(s < t for s, t in zip(shape, tiles, strict=True)):
        return Refusal(
            NAME,
            "refuses",
            f"An image of {tuple(shape)} is smaller than a block of {tuple(tiles)}; use a smaller "
            "n or predict without blocking.",
        )
    if any(t <= 2 * _input_halo(a) for a, t in zip(axes, tiles, strict=True)):
        reason = f"Blocks of {tuple(tiles)} are used up by their halo; use a larger n."
        return Refusal(NAME, "fails", reason)
    placed = [_blocks(a, s, t) for a, s, t in zip(axes, shape, tiles, strict=True)]
    for axis, tile, parts in zip(axes, tiles, placed, strict=True):
        refusal = _unfit_answer(axis, tile, parts)
        if refusal is not None:
            return refusal
    output = tuple(math.floor(s * a.scale) for a, s in zip(axes, shape, strict=True))
    return Placement(NAME, tuple(shape), output, "symmetric", tuple(placed))


def _input_halo(axis: DeclaredAxis) -> int:
    """Input pixels read around what is kept, per side."""
    return int(axis.halo / axis.scale)


def _blocks(axis: DeclaredAxis, size: int, tile: int) -> tuple[AxisTile, ...]:
    halo = _input_halo(axis)
    kept = tile - 2 * halo
    starts = [min(p, size - kept) for p in range(0, size, kept)]
    inner = [(start, start + kept) for start in starts]
    written = [(math.floor(a * axis.scale), math.floor(b * axis.scale)) for a, b in inner]
    return tuple(
        AxisTile((a - halo, b + halo), (axis.halo, axis.halo + w[1] - w[0]), w)
        for (a, b), w in zip(inner, written, strict=True)
    )


def _unfit_answer(axis: DeclaredAxis, tile: int, parts: Sequence[AxisTile]) -> Refusal | None:
    """Core's check that a block's answer is as wide as what is written and the halo around it."""
    answer = axis.answer(tile)
    for part in parts:
        expected = part.write[1] - part.write[0] + 2 * axis.halo
        if answer != expected:
            return Refusal(
                NAME,
                "fails",
                f"ValueError at a block: data size is {answer} but expected {expected}; declare "
                "outputs the size of the input (offset 0, no scale).",
            )
    return None


def place_whole(axes: Sequence[DeclaredAxis], shape: Sequence[int]) -> Placement | Refusal:
    """The one tile of `predict_sample_without_blocking`: the image padded by the halo.

    No size is checked there: whether the network takes the padded image shows when it runs.

    Raises:
        GeometryError: shape and axes differ in number.
    """
    expect_one_size_per_axis(axes, shape)
    if fault := format_fault(axes):
        return Refusal(NAME, "refuses", f"The description is invalid: {fault}.")
    parts = []
    for axis, size in zip(axes, shape, strict=True):
        halo = _input_halo(axis)
        answer = axis.answer(size + 2 * halo)
        if answer - 2 * axis.halo < 1:
            return Refusal(
                NAME,
                "fails",
                f"Nothing is left of an answer of {answer} pixels without its halo of {axis.halo} "
                "per side; use a larger image.",
            )
        kept = (axis.halo, answer - axis.halo)
        parts.append(AxisTile((-halo, size + halo), kept, (0, kept[1] - kept[0])))
    output = tuple(p.write[1] for p in parts)
    return Placement(NAME, tuple(shape), output, "symmetric", tuple((p,) for p in parts))


def accepts(axes: Sequence[DeclaredAxis], shape: Sequence[int]) -> Refusal | None:
    """What stops an image (z)yx given as a file or a numpy array; None when it is read as it is.

    The size before padding must be minimum + n * step on every axis; an axis of fixed size takes
    any size from its minimum on. Where the order of the axes does not fit another one is tried, so
    an image can be read transposed without a word: that counts as a failure here.

    Raises:
        GeometryError: shape and axes differ in number.
    """
    expect_one_size_per_axis(axes, shape)
    names = "zyx"[-len(axes) :]
    for order in itertools.permutations(range(len(axes))):  # the first one is the given order
        if all(_passes(a, shape[i]) for a, i in zip(axes, order, strict=True)):
            if order == tuple(range(len(axes))):
                return None
            read = "".join(names[i] for i in order)
            return Refusal(
                NAME,
                "fails",
                f"An image of {tuple(shape)} is read transposed, its {read} as {names}: declare "
                "the same sizes for all space axes.",
            )
    sizes = " x ".join(f"{a.minimum} + n * {a.step}" if a.step else f"{a.minimum}" for a in axes)
    return Refusal(
        NAME,
        "refuses",
        f"An image of {tuple(shape)} does not map to axes of {sizes}; pad it to such a size.",
    )


def _passes(axis: DeclaredAxis, size: int) -> bool:
    return size >= axis.minimum and (axis.step == 0 or (size - axis.minimum) % axis.step == 0)
