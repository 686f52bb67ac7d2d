"""Arrays that stay in their files: what every kind of file gives to `open_source`.

kind of file              read as                                  where
PNG, JPEG                 decoded whole, kept as stored            here
HDF5                      a dataset, by chunks                     here
TIFF                      planes: mapped, or by tiles and strips   source_tiff.py
Zarr, here or remote      an array, by chunks                      source_zarr.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.prediction.decoding import decode
from zoo_models.prediction.stored_arrays import ArrayPlace, opened_array


@dataclass(frozen=True, eq=False)
class LazyArray:
    """An array in a file, of which boxes can be read by several threads at once.

    shape, dtype: as stored.
    axes: a letter for each axis, '1' for one of length 1 that has no meaning; '' where the file
        names none.
    chunk: pixels per axis that are read and decoded together.
    read: pixels as stored of one slice per axis, each with start and stop inside the array.
    identity: lines that change when the file changes.
    size_um: micrometres per axis ('z', 'y', 'x'), where the file tells them.
    colour: the channels are those of a photograph.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    chunk: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    identity: Callable[[], list[str]]
    size_um: dict[str, float] = field(default_factory=dict)
    colour: bool = False
    close: Callable[[], None] = lambda: None


def file_identity(path: Path) -> list[str]:
    """Absolute path, size, and time of the last change in nanoseconds."""
    status = path.stat()
    return [str(path.absolute()), str(status.st_size), str(status.st_mtime_ns)]


def open_picture(path: Path) -> LazyArray:
    """A PNG or JPEG, yx or yxc. These formats have no parts, so the pixels are kept in memory.

    Raises:
        ImageError: see decode.
    """
    decoded = decode(path)
    axes = decoded.axes if decoded.axes == "yx" else "yxc"
    pixels = decoded.data.transpose([decoded.axes.index(axis) for axis in axes])
    return LazyArray(
        shape=pixels.shape,
        dtype=pixels.dtype,
        axes=axes,
        chunk=pixels.shape,
        read=lambda index: pixels[index],
        identity=lambda: file_identity(path),
        colour=decoded.colour,
    )


def open_hdf5(place: ArrayPlace) -> LazyArray:
    """A dataset of an HDF5 file.

    Its axes are those of ilastik's `axistags`, or the labels of its dimensions; its voxel size is
    the attribute `element_size_um` (z, y, x), as ilastik and PlantSeg write it.

    Raises:
        ImageError: no such file, damaged, or no dataset there.
    """
    with ExitStack() as stack:
        array, _ = stack.enter_context(opened_array(place))
        shape = tuple(array.shape)
        size_um = np.ravel(array.attrs.get("element_size_um", ())).tolist()
        return LazyArray(
            shape=shape,
            dtype=array.dtype,
            axes=_hdf5_axes(array),
            chunk=array.chunks or (1,) * (len(shape) - 1) + shape[-1:],
            read=lambda index: np.asarray(array[index]),
            identity=lambda: [*file_identity(place.path), place.key],
            size_um=dict(zip("zyx", size_um, strict=True)) if len(size_um) == 3 else {},
            close=stack.pop_all().close,  # what is open stays open until then
        )


def _hdf5_axes(array: Any) -> str:
    letters: list[str] = []
    if "axistags" in array.attrs:
        letters = [axis["key"] for axis in json.loads(array.attrs["axistags"])["axes"]]
    elif all(dimension.label for dimension in array.dims):
        letters = [dimension.label for dimension in array.dims]
    known = letters and all(letter.lower() in tuple("tczyx") for letter in letters)
    return "".join(letters).lower() if known else ""
