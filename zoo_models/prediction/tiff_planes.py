"""The pixels of a TIFF file, of which only those of a box are read.

An image is a row of planes (pages of the file), and a plane is stored in one of three ways:

    in one piece, plain        ->  the wanted rows are mapped from the file
    in tiles or flat strips    ->  those that the box touches are decoded
    in high compressed strips  ->  no part can be read: decoded once, plane after plane, into a
                                   temporary file, of which the wanted rows are mapped

A file is mapped anew for every few rows: what was touched counts as memory until it is unmapped,
and the system maps some 64 KiB around each touch.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import ImageError

# A compressed strip above both is decoded only once, with the whole image, into a file.
HIGH_STRIP_BYTES = 4 << 20
HIGH_STRIP_ROWS = 64

# Decoded tiles and strips that are kept, since neighbouring boxes share them.
KEPT_BYTES = 64 << 20

_MAPPED_ROWS = 64

_JPEG = (6, 7, 33007, 34892)

Index = tuple[slice, ...]


class Planes(Protocol):
    """`chunk` and `read` as those of a LazyArray, in the axes of the series."""

    @property
    def chunk(self) -> tuple[int, ...]: ...
    def read(self, index: Index) -> NDArray[Any]: ...
    def close(self) -> None: ...


def planes_of(series: Any, path: Path) -> Planes:
    """The way to read a series (a tifffile.TiffPageSeries) of the file `path`."""
    plane = series.keyframe
    if series.dataoffset is not None:
        return _Mapped(series, path)
    lead = _count_leading(series)
    if lead is None:
        return _DecodedOnce(series)
    if plane.is_final:
        return _MappedApart(series, lead)
    if not plane.is_tiled:
        rows = min(plane.rowsperstrip, plane.imagelength)
        strip = rows * plane.imagewidth * plane.shaped[-1] * series.dtype.itemsize
        if rows > HIGH_STRIP_ROWS and strip > HIGH_STRIP_BYTES:
            return _DecodedOnce(series)
    return _Segments(series, lead)


def _count_leading(series: Any) -> int | None:
    """How many axes count the planes, where the others are those of a plane: (S)YX or YX(S)."""
    plane = series.keyframe
    before, depth, height, width, after = plane.shaped
    shape = (before,) * (before > 1) + (height, width) + (after,) * (after > 1)
    lead = len(series.shape) - len(shape)
    usual = depth == 1 and series.transform is None and plane.jpegheader is None
    y = lead + (before > 1)
    fits = lead >= 0 and series.shape[lead:] == shape and series.axes[y : y + 2] == "YX"
    return lead if usual and fits and math.prod(series.shape[:lead]) == len(series) else None


def _rows_of(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """The chunk of what is mapped: one row, with all its samples."""
    return tuple(n if axis in "XS" else 1 for axis, n in zip(axes, shape, strict=True))


def _plane_by_plane(
    series: Any, index: Index, lead: int, read: Callable[[int, Index], NDArray[Any]]
) -> NDArray[Any]:
    """A box of the series from `read(number of the plane, box in the plane)`."""
    out = np.empty([s.stop - s.start for s in index], series.dtype)
    wanted = itertools.product(*(range(s.start, s.stop) for s in index[:lead]))
    for target, position in zip(np.ndindex(*out.shape[:lead]), wanted, strict=True):
        number = np.ravel_multi_index(position, series.shape[:lead]) if lead else 0
        out[target] = read(int(number), index[lead:])
    return out


def _map(
    file: tuple[Path, int], shape: tuple[int, ...], dtype: np.dtype[Any], index: Index, *, y: int
) -> NDArray[Any]:
    """A box of an array at an offset of a file, axis `y` of which counts the rows."""
    out = np.empty([s.stop - s.start for s in index], dtype)
    above = itertools.product(*(range(s.start, s.stop) for s in index[:y]))
    for target, position in zip(np.ndindex(*out.shape[:y]), above, strict=True):
        for row in range(index[y].start, index[y].stop, _MAPPED_ROWS):
            rows = slice(row, min(row + _MAPPED_ROWS, index[y].stop))
            into = slice(rows.start - index[y].start, rows.stop - index[y].start)
            part: Any = (*position, rows, *index[y + 1 :])
            out[(*target, into)] = np.memmap(file[0], dtype, "r", file[1], shape)[part]
    return out


class _Mapped:
    """All planes in one piece, at `offset` of a file."""

    def __init__(self, series: Any, path: Path, *, offset: int | None = None) -> None:
        self.file = path, series.dataoffset if offset is None else offset
        self.shape, self.y = series.shape, series.axes.index("Y")
        order = series.keyframe.parent.byteorder if offset is None else "="
        self.dtype = np.dtype(series.dtype).newbyteorder(order)
        self.chunk = _rows_of(series.shape, series.axes)

    def read(self, index: Index) -> NDArray[Any]:
        return _map(self.file, self.shape, self.dtype, index, y=self.y)

    def close(self) -> None: ...


class _MappedApart:
    """Every plane in one piece."""

    def __init__(self, series: Any, lead: int) -> None:
        self.series, self.lead = series, lead
        self.shape, self.y = series.shape[lead:], series.axes.index("Y") - lead
        self.dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
        self.chunk = _rows_of(series.shape, series.axes)
        self._lock = threading.Lock()

    def read(self, index: Index) -> NDArray[Any]:
        return _plane_by_plane(self.series, index, self.lead, self._read_plane)

    def _read_plane(self, number: int, index: Index) -> NDArray[Any]:
        with self._lock:  # tifffile reads the tags of a page when it is first asked for it
            page = self.series[number]
            file = Path(page.parent.filehandle.path), page.dataoffsets[0]
        return _map(file, self.shape, self.dtype, index, y=self.y)

    def close(self) -> None: ...


class _Segments:
    """Planes of tiles or strips, in the order of tifffile: samples apart, rows, columns."""

    def __init__(self, series: Any, lead: int) -> None:
        self.series, self.lead, self.plane = series, lead, series.keyframe
        tiled = self.plane.is_tiled
        high = self.plane.tilelength if tiled else self.plane.rowsperstrip
        self.high = min(high, self.plane.imagelength)
        self.wide = self.plane.tilewidth if tiled else self.plane.imagewidth
        part = {"Y": self.high, "X": self.wide}
        self.chunk = tuple(
            1 if i < lead else min(part.get(axis, n), n)
            for i, (axis, n) in enumerate(zip(series.axes, series.shape, strict=True))
        )
        self.plane.decode  # noqa: B018  made now: its cache is not for several threads
        self._lock = threading.Lock()
        self._open: dict[str, BinaryIO] = {}
        size = self.high * self.wide * self.plane.shaped[-1] * series.dtype.itemsize
        self._segment = lru_cache(maxsize=max(1, KEPT_BYTES // size))(self._decode)

    def read(self, index: Index) -> NDArray[Any]:
        return _plane_by_plane(self.series, index, self.lead, self._read_plane)

    def _read_plane(self, number: int, index: Index) -> NDArray[Any]:
        first = slice(0, 1)
        apart = index[0] if self.plane.shaped[0] > 1 else first
        together = index[-1] if self.plane.shaped[-1] > 1 else first
        ys, xs = index[self.plane.shaped[0] > 1 :][:2]
        out = np.empty([s.stop - s.start for s in (apart, ys, xs, together)], self.series.dtype)
        rows = range(ys.start // self.high, math.ceil(ys.stop / self.high))
        columns = range(xs.start // self.wide, math.ceil(xs.stop / self.wide))
        for sample, row, column in itertools.product(range(apart.start, apart.stop), rows, columns):
            pixels, y, x = self._segment(number, sample, row, column)
            top, bottom = max(y, ys.start), min(y + pixels.shape[0], ys.stop)
            left, right = max(x, xs.start), min(x + pixels.shape[1], xs.stop)
            target = out[sample - apart.start, top - ys.start : bottom - ys.start]
            target[:, left - xs.start : right - xs.start] = pixels[
                top - y : bottom - y, left - x : right - x, together
            ]
        return out.reshape([s.stop - s.start for s in index])

    def _decode(
        self, number: int, sample: int, row: int, column: int
    ) -> tuple[NDArray[Any], int, int]:
        """The pixels (y, x, samples) of a tile or strip, and the y and x where they begin."""
        down = math.ceil(self.plane.imagelength / self.high)
        across = math.ceil(self.plane.imagewidth / self.wide)
        segment = (sample * down + row) * across + column
        with self._lock:  # tifffile reads the tags of a page when it is first asked for it
            page = self.series[number]
            data = self._bytes(page, segment)
            tables = {"jpegtables": page.jpegtables} if self.plane.compression in _JPEG else {}
        pixels, (_, _, y, x, _), shape = self.plane.decode(data, segment, **tables)
        if pixels is None:
            pixels = np.broadcast_to(np.array(self.plane.nodata, self.series.dtype), shape)
        return pixels[0], y, x

    def _bytes(self, page: Any, segment: int) -> bytes | None:
        """None for a segment that is not stored: it is empty."""
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
        if count == 0:
            return None
        path = page.parent.filehandle.path
        if path not in self._open:
            self._open[path] = Path(path).open("rb")  # noqa: SIM115  closed in close
        self._open[path].seek(offset)
        return self._open[path].read(count)

    def close(self) -> None:
        for file in self._open.values():
            file.close()


class _DecodedOnce:
    """Planes of which no part can be read: a temporary file of all pixels, made when first asked.

    Takes about three times the memory of one plane, and as much disk as the image has pixels.
    """

    def __init__(self, series: Any) -> None:
        self.series = series
        self.chunk = _rows_of(series.shape, series.axes)
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._mapped: _Mapped | None = None

    def read(self, index: Index) -> NDArray[Any]:
        with self._lock:
            if self._mapped is None:
                self._mapped = self._decode()
        return self._mapped.read(index)

    def _decode(self) -> _Mapped:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="spoco-zoo-")
        path = Path(self._folder.name) / "pixels"
        whole = self.series.transform is not None
        parts = [self.series] if whole else self.series
        try:
            with path.open("wb") as file:
                for part in parts:
                    part.asarray().astype(self.series.dtype, copy=False).tofile(file)
        except OSError as error:
            raise ImageError(
                f"{self.series.parent.filehandle.path}: is stored in strips that cannot be read in "
                f"part, and to decode it once into {path.parent} failed ({error}): make room there "
                "(or elsewhere with TMPDIR), or save it tiled"
            ) from error
        return _Mapped(self.series, path, offset=0)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
