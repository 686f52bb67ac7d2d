"""Groups and arrays of OME-Zarr 0.5 (Zarr v3) on the local disk, made once and then continued.

Coarser levels hold every second pixel of the next finer one, from the first pixel on, so a pixel
lies at origin + index * scale in every level; only a region of an image has an origin. The finest
axes are halved, and with them those less than twice as coarse, until one chunk holds a level::

    z 1 µm, y and x 0.25 µm     level 1  y, x 0.5     level 2  y, x 1.0     level 3  z, y, x 2.0

https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_models.errors import GeometryError, InputError, OutputExistsError
from zoo_models.geometry import Box

if TYPE_CHECKING:
    import zarr
    from yaozarrs import v05

AXES = ("yx", "zyx", "tyx", "tzyx")
"""Axes of a label image or, with c before the space axes, of embeddings."""


@dataclass(frozen=True)
class Level:
    """One resolution: its shape, and how many pixels of the image a pixel spans per axis."""

    shape: tuple[int, ...]
    factor: tuple[int, ...]


def spacing_um(
    axes: str, shape: Sequence[int], voxel_size_um: Sequence[float] | None
) -> dict[str, float]:
    """Micrometres per space axis, empty where they are not known.

    Raises:
        InputError: other axes than those of AXES, a shape that does not fit them, or a voxel size
            that is not one positive number per space axis.
    """
    if axes not in AXES or len(shape) != len(axes) or min(shape) < 1:
        raise InputError(
            f"an image of shape {tuple(shape)} with axes '{axes}' cannot be stored, expected one "
            f"of {', '.join(AXES)} and at least one pixel along each"
        )
    if voxel_size_um is None:
        return {}
    space = axes.replace("t", "")
    if len(voxel_size_um) != len(space) or not all(0 < s < math.inf for s in voxel_size_um):
        raise InputError(
            f"voxel size {tuple(voxel_size_um)} for the axes '{space}', expected one positive "
            "number of micrometres per axis"
        )
    return dict(zip(space, map(float, voxel_size_um), strict=True))


def pyramid(
    shape: Sequence[int], chunk: Sequence[int], spacing: Sequence[float | None]
) -> tuple[Level, ...]:
    """All levels, finest first; axes whose spacing is None keep every pixel."""
    level = Level(tuple(shape), (1,) * len(shape))
    levels = [level]
    while any(n > c for n, c, s in zip(level.shape, chunk, spacing, strict=True) if s is not None):
        sizes = [
            s * f if s is not None and n > 1 else math.inf
            for s, f, n in zip(spacing, level.factor, level.shape, strict=True)
        ]
        step = [2 if size < 2 * min(sizes) else 1 for size in sizes]
        level = Level(
            tuple(math.ceil(n / k) for n, k in zip(level.shape, step, strict=True)),
            tuple(f * k for f, k in zip(level.factor, step, strict=True)),
        )
        levels.append(level)
    return tuple(levels)


def multiscale(
    name: str,
    axes: str,
    *,
    levels: Sequence[Level],
    spacing: Mapping[str, float],
    origin: Sequence[int] | None = None,
    folder: str = "",
) -> v05.Multiscale:
    """The metadata of levels in the arrays `folder`0, `folder`1, ...; unknown spacing counts as 1.

    axes: of the arrays, in the order of the specification: t, c, z, y, x.
    origin: where the first pixel lies, in pixels of the whole image along each space axis.
    """
    from yaozarrs import v05

    start = dict(zip((a for a in axes if a in "zyx"), origin or (), strict=bool(origin)))
    moved = [start.get(a, 0) * spacing.get(a, 1.0) for a in axes]
    translation = [v05.TranslationTransformation(translation=moved)] if any(moved) else []
    kinds = {"t": v05.TimeAxis, "c": v05.ChannelAxis}
    return v05.Multiscale(
        name=name,
        axes=[
            v05.SpaceAxis(name=a, unit="micrometer" if spacing else None)
            if a in "zyx"
            else kinds[a](name=a)
            for a in axes
        ],
        datasets=[
            v05.Dataset(
                path=f"{folder}{number}",
                coordinateTransformations=[
                    v05.ScaleTransformation(
                        scale=[
                            spacing.get(a, 1.0) * f for a, f in zip(axes, level.factor, strict=True)
                        ]
                    ),
                    *translation,
                ],
            )
            for number, level in enumerate(levels)
        ],
        type="nearest" if len(levels) > 1 else None,
        metadata={"description": "every second pixel of the next finer level"}
        if len(levels) > 1
        else None,
    )


def continue_store(path: Path) -> None:
    """Expect nothing at `path` or a Zarr group, and sweep what a killed process left half-written.

    Zarr writes a file under the name *.partial first. No other process may be writing.

    Raises:
        OutputExistsError: something else is there.
    """
    if path.exists() and not (path / "zarr.json").is_file():
        raise OutputExistsError(
            f"{path}: is there and is no Zarr group, expected a new name: choose another or pass "
            "--overwrite"
        )
    for left in path.rglob("*.partial"):
        left.unlink()


def continue_group(path: Path, place: str, ome: v05.Image | v05.LabelsGroup) -> None:
    """The group `place` of the store `path` with this metadata, made where it is not there.

    Raises:
        OutputExistsError: it is there with other metadata.
    """
    import zarr

    wanted = {"ome": ome.model_dump(mode="json", exclude_none=True)}
    if not (path / place / "zarr.json").is_file():
        zarr.create_group(path, path=place, zarr_format=3, attributes=wanted)
        return
    found = zarr.open(path, path=place, mode="r")
    if not isinstance(found, zarr.Group) or found.attrs.asdict() != wanted:
        raise OutputExistsError(
            f"{path / place}: is there with other axes, voxel size, size or name, expected those "
            "of this image: choose another name or pass --overwrite"
        )


def continue_array(
    path: Path, place: str, shape: Sequence[int], *, chunk: Sequence[int], axes: str, **storage: Any
) -> zarr.Array[Any]:
    """The array `place` of the store `path`, made where it is not there.

    storage: `dtype` and `compressors`. A chunk that holds only zeros takes no file.

    Raises:
        OutputExistsError: it is there with another shape, chunk or type.
    """
    import zarr

    if not (path / place / "zarr.json").is_file():
        return zarr.create_array(
            path,
            name=place,
            shape=tuple(shape),
            chunks=tuple(chunk),
            fill_value=0,
            dimension_names=tuple(axes),
            zarr_format=3,
            **storage,
        )
    found = zarr.open(path, path=place, mode="r+")
    wanted = (tuple(shape), tuple(chunk), str(storage["dtype"]))
    there = isinstance(found, zarr.Array) and (found.shape, found.chunks, str(found.dtype))
    if not isinstance(found, zarr.Array) or there != wanted:
        raise OutputExistsError(
            f"{path / place}: is there with (shape, chunk, type) {there or 'of a group'}, expected "
            f"{wanted}: choose another name or pass --overwrite"
        )
    return found


def chunk_of(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """`chunk` of a block's axes, with 1 for each leading axis of a stack.

    Raises:
        GeometryError: not 2 or 3 positive sizes, or more than the image has axes.
    """
    if len(chunk) not in (2, 3) or len(chunk) > len(shape) or min(chunk) < 1:
        raise GeometryError(
            f"Chunk {tuple(chunk)} for an image of shape {tuple(shape)}: give one positive size "
            "for each of a block's axes, (z)yx."
        )
    return (1,) * (len(shape) - len(chunk)) + tuple(chunk)


def aligned_place(
    shape: Sequence[int], chunk: Sequence[int], box: Box, at: Sequence[int]
) -> tuple[int | slice, ...]:
    """Where a box goes in a stack of `shape` (without c), at index `at` of its leading axes.

    A box must hold whole chunks, so that no chunk is ever written by two::

        chunk    |-------|-------|-------|----|
        box              |<------------->|          good: starts and stops on chunks
        box                              |<-->|     good: stops at the image's border
        box          |<--------->|                  refused

    Raises:
        GeometryError: the box is not so, leaves the image, or does not fit its axes.
    """
    rest = tuple(shape)[len(at) :]
    inside = len(at) + len(box.start) == len(shape) and all(
        0 <= i < n for i, n in zip(at, shape, strict=False)
    )
    if not inside or box.size == 0 or not Box.of_shape(rest).contains(box):
        raise GeometryError(
            f"Box {box.start} to {box.stop} at {tuple(at)} does not lie within the image of shape "
            f"{tuple(shape)}."
        )
    own = tuple(chunk)[len(at) :]
    good = all(
        a % c == 0 and (b % c == 0 or b == n)
        for a, b, c, n in zip(box.start, box.stop, own, rest, strict=True)
    )
    if not good:
        raise GeometryError(
            f"Box {box.start} to {box.stop} cuts chunks of {own}: start on multiples of the chunk, "
            f"and stop on multiples or at the border {rest}."
        )
    return (*at, *box.slices)


def chunk_places(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The place of every chunk, in the order of the array."""
    starts = [range(0, n, c) for n, c in zip(shape, chunk, strict=True)]
    for start in itertools.product(*starts):
        yield tuple(slice(a, min(a + c, n)) for a, c, n in zip(start, chunk, shape, strict=True))
