"""Images of any size: opened once, read box by box, always as c(z)yx float32.

    stored      t  c  z        y              x        axes named by the file, or by `axes`
                |  |  |        |              |
    at = (1, 7) 1  |  7        |              |        the stack: axes that a network does not see
    channel        0           |              |        one, or all of them
    region                 100..612        0..512      what counts as the image, 512 x 512
    box                     0..256        256..512     what is read, from the region's origin
                   |       100..356       256..512     (these are the stored pixels)
                   c           y              x        what comes out: 1 x 256 x 256

A network for yx walks over t and z, one for zyx over t.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError, ImageError
from zoo_models.geometry import Box
from zoo_models.prediction.decoding import TIFF_SUFFIXES, VoxelSize, first_line
from zoo_models.prediction.images import (
    Found,
    as_float32,
    expect_channel,
    expect_found,
    expect_real,
    not_finite,
)
from zoo_models.prediction.source_arrays import LazyArray, open_hdf5, open_picture
from zoo_models.prediction.source_place import Place, axes_of, region_of
from zoo_models.prediction.stored_arrays import array_place

__all__ = ["Place", "Source", "expect_source", "open_source"]

_PIECE = 512  # pixels along an axis that are compared at a time


def open_source(place: Place, *, ndim: int) -> Source:
    """Open an image for a network with `ndim` space axes, 2 (yx) or 3 (zyx).

    A yx image opens for ndim 3, too; expect_source tells what fits. A colour image whose channels
    are all equal (alpha constant) is grey, as in read_image: the place of the source then names
    channel 0. Channels are compared chunk by chunk up to the first difference.

    Raises:
        ImageError: no such image, damaged, axes that nobody names, pixels that are no real
            numbers, a channel or region that it does not have.
        InputError: a library that the URL needs is not installed.
    """
    array = _open(place.path)
    try:
        expect_real(array.dtype, place.path)
        names = axes_of(array, place, ndim)
        space = "zyx" if ndim == 3 and "z" in names else "yx"
        size = dict(zip(names, array.shape, strict=True))
        whole = tuple(size[axis] for axis in space)
        if place.channel is not None:
            expect_channel(place.channel, size.get("c", 1), place.path)
        source = Source(place, array, names, space, region_of(place, whole))
        return replace(source, place=replace(place, channel=0)) if _is_grey(source) else source
    except BaseException:
        array.close()
        raise


@dataclass(frozen=True, eq=False)
class Source:
    """An image in a file. A context manager; several threads may read at once.

    place: where it is; with it another process opens the same source.
    axes: 'yx' or 'zyx'.
    region: the stored pixels (z)yx that count as the image.
    """

    place: Place
    array: LazyArray = field(repr=False)
    names: str  # of the stored axes: letters of tczyx, '1' for one of length 1 without meaning
    axes: str
    region: Box

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.array.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """(z)yx, of the region."""
        return self.region.shape

    @property
    def channels(self) -> int:
        return 1 if self.place.channel is not None else self._sizes.get("c", 1)

    @property
    def dtype(self) -> str:
        """As stored."""
        return self.array.dtype.name

    @property
    def voxel_size_um(self) -> VoxelSize | None:
        """(z)yx in micrometres, where the file tells all of them."""
        sizes = [self.array.size_um[axis] for axis in self.axes if axis in self.array.size_um]
        return tuple(sizes) if len(sizes) == len(self.axes) else None

    @property
    def stack(self) -> tuple[tuple[str, int], ...]:
        """Axes over which the network walks, with their lengths: t, then z; () if none."""
        rest = [axis for axis in "tz" if axis not in self.axes and self._sizes.get(axis, 1) > 1]
        return tuple((axis, self._sizes[axis]) for axis in rest)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Pixels (z)yx that are read and decoded together; their grid begins at the origin of the
        whole image, not of the region."""
        chunk = dict(zip(self.names, self.array.chunk, strict=True))
        return tuple(min(chunk[axis], n) for axis, n in zip(self.axes, self.shape, strict=True))

    @property
    def _sizes(self) -> dict[str, int]:
        return dict(zip(self.names, self.array.shape, strict=True))

    def read(self, box: Box, at: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """The pixels of a box.

        Args:
            box: (z)yx, from the origin of the region, inside of it.
            at: the position along each axis of the stack.

        Returns:
            c(z)yx float32, all finite.

        Raises:
            ImageError: damaged, or pixels that are not finite.
            GeometryError: the box leaves the image, or `at` the stack.
        """
        lengths = tuple(n for _, n in self.stack)
        inside = len(at) == len(lengths) and all(
            0 <= a < n for a, n in zip(at, lengths, strict=True)
        )
        if not inside or not Box.of_shape(self.shape).contains(box):
            raise GeometryError(
                f"{self.place.path}: no box {box.start} to {box.stop} at {at}, expected one inside "
                f"{self.shape} at a position inside {lengths}."
            )
        if box.size == 0:
            return np.empty((self.channels, *box.shape), np.float32)
        stored = box.shift(self.region.start)
        index = self._index(stored, at)
        try:
            data = self.array.read(tuple(index.get(n, slice(0, 1)) for n in self.names))
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # every library raises its own classes, on any damage
            raise ImageError(
                f"{self.place.path}: {self._where(stored, at)} cannot be read "
                f"({first_line(error)}), expected a complete image: copy or export it again"
            ) from error
        values = as_float32(self._ordered(data).reshape(self.channels, *box.shape))
        if data.dtype.kind == "f" and not np.isfinite(values).all():
            raise not_finite(values, f"{self.place.path}: {self._where(stored, at)} has")
        return values

    def _ordered(self, data: NDArray[Any]) -> NDArray[Any]:
        """What was read, with the axes that the network sees last: c(z)yx; others have length 1."""
        seen = "c" + self.axes
        order = [i for i, name in enumerate(self.names) if name not in seen]
        return data.transpose(order + [self.names.index(a) for a in seen if a in self.names])

    def _index(self, stored: Box, at: tuple[int, ...]) -> dict[str, slice]:
        """Stored axis -> what of it is read; those that are left out have length 1."""
        channel = self.place.channel
        first, last = (0, self._sizes.get("c", 1)) if channel is None else (channel, channel + 1)
        index = dict(zip(self.axes, stored.slices, strict=True))
        index |= {axis: slice(a, a + 1) for (axis, _), a in zip(self.stack, at, strict=True)}
        return index | {"c": slice(first, last)}

    def _where(self, stored: Box, at: tuple[int, ...]) -> str:
        """'t 3, z 0:16, y 0:256, x 256:512', in pixels of the whole image."""
        planes = [f"{axis} {a}" for (axis, _), a in zip(self.stack, at, strict=True)]
        ranges = zip(self.axes, stored.start, stored.stop, strict=True)
        return ", ".join([*planes, *(f"{axis} {a}:{b}" for axis, a, b in ranges)])

    def fingerprint(self) -> str:
        """Hexadecimal digits that change when the image or the place's choices change.

        A file: its absolute path, size and time of change. A Zarr array: its metadata, and the
        size and time (or ETag) of its chunk files, at most 50,000 on this machine and 128
        elsewhere, evenly spread; an edit to a few chunks of a larger array may pass unseen.
        """
        choices = asdict(self.place)
        if "://" not in self.place.path:
            choices["path"] = str(Path(self.place.path).absolute())
        lines = [json.dumps(choices, sort_keys=True), *self.array.identity()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def expect_source(source: Source, *, axes: str, channels: int) -> None:
    """Check that an image fits a network that takes `axes` ('yx' or 'zyx') and `channels`.

    Raises:
        ImageError: an image without z for a 3D network, another number of channels.
    """
    found = Found(source.place.path, source.axes, source.shape, source.channels)
    expect_found(found, axes=axes, channels=channels)


def _open(path: str) -> LazyArray:
    if path.startswith("file://"):
        from fsspec.core import url_to_fs

        path = url_to_fs(path)[1]
    if "://" in path:
        from zoo_models.prediction.source_zarr import open_remote_zarr

        return open_remote_zarr(path)
    place = array_place(path)
    if place is None:
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            from zoo_models.prediction.source_tiff import open_tiff

            return open_tiff(Path(path))
        return open_picture(Path(path))
    if place.is_zarr:
        from zoo_models.prediction.source_zarr import open_local_zarr

        return open_local_zarr(place)
    return open_hdf5(place)


def _is_grey(source: Source) -> bool:
    """Whether a colour image has one colour; an even channel count ends with alpha."""
    if not source.array.colour or source.place.channel is not None or source.channels == 1:
        return False
    alpha: set[float] = set()
    for box, at in _pieces(source):
        data = source.read(box, at)
        colours = data[:-1] if len(data) % 2 == 0 else data
        if len(data) % 2 == 0:
            alpha |= {float(data[-1].min()), float(data[-1].max())}
        if len(alpha) > 1 or not (colours == colours[:1]).all():
            return False
    return True


def _pieces(source: Source) -> Iterator[tuple[Box, tuple[int, ...]]]:
    """Boxes of whole chunks that cover the image, about _PIECE wide, through all of the stack."""
    step = [c * math.ceil(_PIECE / c) for c in source.chunk]
    grid = [range(0, n, s) for n, s in zip(source.shape, step, strict=True)]
    for at in itertools.product(*(range(n) for _, n in source.stack)):
        for start in itertools.product(*grid):
            stop = (min(a + s, n) for a, s, n in zip(start, step, source.shape, strict=True))
            yield Box(start, tuple(stop)), at
