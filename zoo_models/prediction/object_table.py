"""One row per object, summed over the blocks in which the object lies.

    block 1         block 2
    +---------------+---------------+     each block gives sums of its part of every object: pixels,
    |           oooo|ooo            |     coordinates, intensity, and the corners of its box; the
    |            ooo|oo     xx      |     parts of one label are added, whatever the blocks are
    +---------------+---------------+

Blocks have labels of the whole image, so a part is known by its label. Sums of pixels and of
coordinates are integers, hence exact; intensities are summed in float64, in an order that does not
depend on that of the blocks.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError, InputError
from zoo_models.geometry import Box
from zoo_models.prediction.multiscale import spacing_um

ROWS = 2**15
"""Objects that are in memory at a time."""


@dataclass(frozen=True, eq=False)
class ObjectSums:
    """What blocks know of n objects, ascending by `id`; d axes, c channels. Arrays only::

        np.savez(file, **vars(sums))        with np.load(file) as arrays: ObjectSums(**arrays)

    Attributes:
        id: (n,) int64 labels.
        pixels: (n,) int64.
        start, stop: (n, d) int64, half open box in pixels of the whole image.
        coordinates: (n, d) int64, sums of the pixels' coordinates in the whole image.
        intensity: (n, c) float64, sums of the image.
    """

    id: NDArray[np.int64]
    pixels: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    coordinates: NDArray[np.int64]
    intensity: NDArray[np.float64]

    def between(self, begin: int, end: int) -> ObjectSums:
        """Those whose id is `begin` or more, and below `end`."""
        rows = slice(*np.searchsorted(self.id, (begin, end)))
        return ObjectSums(*(getattr(self, f.name)[rows] for f in fields(self)))


def partial_table(labels: NDArray[np.integer], image: NDArray[Any], box: Box) -> ObjectSums:
    """The sums of one block; 0 is no object.

    Pixels are taken by runs, rows of one label along x, of which there are few.

    Args:
        labels: integers, with the axes of `box`.
        image: c and the same axes, numbers; c may be 0.
        box: where the block lies in the whole image.

    Raises:
        GeometryError: shapes that differ.
    """
    if labels.shape != box.shape or image.shape[1:] != box.shape:
        raise GeometryError(
            f"Labels of shape {labels.shape} and an image of shape {image.shape} for a box of "
            f"shape {box.shape}: expected that shape, and c before it."
        )
    flat = np.ascontiguousarray(labels).ravel()
    cut = np.ones(labels.shape, bool)
    cut[..., 1:] = labels[..., 1:] != labels[..., :-1]
    begin = np.flatnonzero(cut)
    length = np.diff(begin, append=flat.size)
    intensity = np.empty((len(begin), len(image)))
    for channel, values in enumerate(image):
        intensity[:, channel] = np.add.reduceat(values.ravel(), begin, dtype=np.float64)
    kept = flat[begin] != 0
    begin, length, intensity = begin[kept], length[kept], intensity[kept]
    start = np.stack(np.unravel_index(begin, box.shape), axis=1) + np.array(box.start)
    stop = start + 1
    stop[:, -1] = start[:, -1] + length
    coordinates = start * length[:, None]
    coordinates[:, -1] += length * (length - 1) // 2  # x, x + 1, ..., x + length - 1
    return _summed(
        ObjectSums(flat[begin].astype(np.int64), length, start, stop, coordinates, intensity)
    )


def merge_tables(tables: Iterable[ObjectSums]) -> ObjectSums:
    """The sums of all blocks; the order of the tables does not show, not even in the last bit.

    Raises:
        InputError: no table at all.
    """
    parts = list(tables)
    if not parts:
        raise InputError("no object tables of blocks were found, expected one or more")
    return _summed(
        ObjectSums(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(ObjectSums))
        )
    )


def merged_in_portions(
    read: Callable[[int], ObjectSums], number: int, *, most: int = ROWS
) -> Iterator[ObjectSums]:
    """The sums of all blocks, `most` objects at a time, ascending; never are all in memory.

    read: the table of the n-th of `number` blocks, which is asked for several times. Objects are
    numbered 1, 2, ... in the order of their first pixels, so few blocks have any of a portion.
    """
    spans = [(i[0], i[-1]) if len(i := read(n).id) else (1, 0) for n in range(number)]
    lowest, highest = np.array(spans, np.int64).reshape(-1, 2).T
    for begin in range(1, int(highest.max(initial=1)) + 1, most):
        some = np.flatnonzero((lowest < begin + most) & (highest >= begin)).tolist()
        yield merge_tables(read(n).between(begin, begin + most) for n in some or [0])


def write_table(
    path: Path | str,
    portions: Iterable[ObjectSums],
    *,
    axes: str,
    voxel_size_um: Sequence[float] | None = None,
) -> None:
    """Write one row per object as CSV or, where the name ends in .parquet, as Parquet.

    Columns: id, area_pixels, area_um2 or volume_um3 where the voxel size is known,
    bbox_y_start, bbox_y_stop (half open), ..., centroid_y, ... (both in pixels of the image, pixel
    centres being whole numbers), mean_intensity, or mean_intensity_0, ... of several channels.
    The file appears under its name only when it is complete, and replaces one that is there.

    Args:
        path: name ending in .csv or .parquet.
        portions: sums of all blocks, ascending; one at least.
        axes: 'yx', 'zyx', 'tyx' or 'tzyx', those of the sums.
        voxel_size_um: micrometres per space axis.

    Raises:
        InputError: another suffix, other axes, an impossible voxel size, no pyarrow for Parquet, or
            a path where no file can be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path}: object tables are written as .csv or .parquet: choose a name")
    columns = _each(portions, axes, voxel_size_um)
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_csv
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            write(temporary, columns)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}), expected a writable folder "
            "with room: choose another"
        ) from error


def _summed(parts: ObjectSums) -> ObjectSums:
    """One row per label. Parts lie in different places, so their corners put them in order."""
    keys = (*parts.start.T[::-1], parts.id)
    order = np.lexsort(keys)
    label = parts.id[order]
    first = np.flatnonzero(np.diff(label, prepend=label[:1] - 1))

    def reduced(how: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        if not len(first):
            return values
        found: NDArray[Any] = how.reduceat(values[order], first, axis=0)
        return found

    return ObjectSums(
        id=label[first],
        pixels=reduced(np.add, parts.pixels),
        start=reduced(np.minimum, parts.start),
        stop=reduced(np.maximum, parts.stop),
        coordinates=reduced(np.add, parts.coordinates),
        intensity=reduced(np.add, parts.intensity),
    )


def _each(
    portions: Iterable[ObjectSums], axes: str, voxel_size_um: Sequence[float] | None
) -> Iterator[dict[str, NDArray[Any]]]:
    for sums in portions:
        spacing = spacing_um(axes, (1,) * sums.start.shape[1], voxel_size_um)
        yield _columns(sums, axes, spacing)


def _columns(sums: ObjectSums, axes: str, spacing: dict[str, float]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {"id": sums.id, "area_pixels": sums.pixels}
    if spacing:
        size = float(np.prod(list(spacing.values())))
        columns["area_um2" if len(spacing) == 2 else "volume_um3"] = sums.pixels * size
    for i, axis in enumerate(axes):
        columns[f"bbox_{axis}_start"] = sums.start[:, i]
        columns[f"bbox_{axis}_stop"] = sums.stop[:, i]
    for i, axis in enumerate(axes):
        columns[f"centroid_{axis}"] = sums.coordinates[:, i] / sums.pixels
    channels = sums.intensity.shape[1]
    for i in range(channels):
        name = "mean_intensity" if channels == 1 else f"mean_intensity_{i}"
        columns[name] = sums.intensity[:, i] / sums.pixels
    return columns


def _write_csv(path: Path, portions: Iterator[dict[str, NDArray[Any]]]) -> None:
    """Floats with as many digits as tell them apart."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, columns in enumerate(portions):
            if number == 0:
                writer.writerow(columns)
            writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))


def _write_parquet(path: Path, portions: Iterator[dict[str, NDArray[Any]]]) -> None:
    try:
        import pyarrow  # here: most runs write no Parquet
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError(
            "Parquet is written with pyarrow, which is not installed: pip install "
            "'spoco-zoo[large]', or choose a name ending in .csv"
        ) from error
    first = pyarrow.table(next(portions))
    with parquet.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in itertools.chain([first], map(pyarrow.table, portions)):
            writer.write_table(table)
