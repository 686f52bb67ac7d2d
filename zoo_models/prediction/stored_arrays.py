"""Arrays in files, as they are stored: .npy, TIFF, and arrays inside HDF5 files and Zarr stores.

array.npy                 without names of axes
array.ome.tif             OME and ImageJ files name their axes, other TIFFs do not
file.h5:/path/inside      an array in an HDF5 file, without names of axes
store.zarr/path/inside    a Zarr array, or a multiscale OME-Zarr group, which names its axes
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from zoo_models.errors import ImageError
from zoo_models.prediction.decoding import (
    TIFF_SUFFIXES,
    expect_all_pixels,
    first_line,
    suggestion,
    tifffile_messages,
)
from zoo_models.prediction.voxel_size import ome_voxel_size
from zoo_models.prediction.zarr_images import ZarrImage, find_zarr, no_array

_HDF5 = re.compile(r"(?P<file>.*\.(?:h5|hdf5|hdf))(?::/?(?P<key>.*))?")
_ZARR = re.compile(r"(?P<file>.*?\.zarr)(?:/(?P<key>.*))?")


@dataclass(frozen=True)
class ArrayPlace:
    """The array `key` inside an HDF5 file or a Zarr store; of a multiscale OME-Zarr group the
    finest resolution."""

    path: Path
    key: str

    def __str__(self) -> str:
        return f"{self.path}{'/' if self.is_zarr else ':/'}{self.key}"

    @property
    def is_zarr(self) -> bool:
        return self.path.suffix == ".zarr"


@dataclass(frozen=True, eq=False)
class Stored:
    """Values as stored, a letter for each axis where the file names them (else empty), and
    micrometres per axis ('z', 'y', 'x') where the file tells them."""

    data: NDArray[Any]
    names: str
    size_um: dict[str, float]


def array_place(text: str, folder: Path = Path()) -> ArrayPlace | None:
    """`file.h5:/key` or `store.zarr/key` as a place, None for a path of another kind."""
    found = _HDF5.fullmatch(text) or _ZARR.fullmatch(text)
    return ArrayPlace(folder / found["file"], (found["key"] or "").strip("/")) if found else None


@contextmanager
def opened_array(place: ArrayPlace) -> Iterator[tuple[Any, str]]:
    """An array of which parts can be read by slicing, and its axes' names or ''.

    Raises:
        ImageError: no such file, damaged, or no array there.
    """
    with _zarr_array(place) if place.is_zarr else _hdf5_array(place) as found:
        yield found


def read_stored(source: Path | str) -> Stored:
    """A whole array of real numbers, from any of the files above.

    Raises:
        ImageError: no such file, another kind of file, damaged, several arrays, other values.
    """
    place = array_place(str(source))
    if place is None:
        return read_file(Path(source))
    with opened_array(place) as (array, names):
        return _expect_real(source, Stored(np.asarray(array[...]), names, {}))


def read_file(path: Path) -> Stored:
    """A whole array of real numbers from a .npy or TIFF file.

    Raises:
        ImageError: as read_stored.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ImageError(f"{path}: no such file, expected an image or array{suggestion(path)}")
    if suffix not in (*TIFF_SUFFIXES, ".npy"):
        raise ImageError(
            f"{path}: has the suffix '{path.suffix}', expected .tif or .npy, which keep all "
            "values: export the prediction so"
        )
    try:
        stored = _read_tiff(path) if suffix in TIFF_SUFFIXES else Stored(_read_npy(path), "", {})
    except Exception as error:  # decoders raise their own classes, on any damage
        raise ImageError(
            f"{path}: cannot be read ({first_line(error)}), expected a complete {suffix} file of "
            "one array: copy or export it again"
        ) from error
    return _expect_real(path, stored)


def _expect_real(source: Path | str, stored: Stored) -> Stored:
    if stored.data.dtype.kind not in "buif":
        raise ImageError(f"{source}: has values of type {stored.data.dtype}, expected real numbers")
    return stored


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_tiff(path: Path) -> Stored:
    with tifffile_messages() as messages, tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            raise ValueError(f"it holds {len(tiff.series)} separate images")
        data = tiff.series[0].asarray()
        names = tiff.series[0].axes if tiff.is_ome or tiff.is_imagej else ""
        size_um = ome_voxel_size(tiff.ome_metadata) if tiff.ome_metadata else {}
    expect_all_pixels(messages)
    return Stored(data, names, size_um)


@contextmanager
def _hdf5_array(place: ArrayPlace) -> Iterator[tuple[Any, str]]:
    import h5py  # type: ignore[import-untyped]  # here: most commands read no HDF5

    if not place.path.is_file():
        raise ImageError(
            f"{place.path}: does not exist, expected an HDF5 file{suggestion(place.path)}"
        )
    try:
        file = h5py.File(place.path, "r")
    except OSError as error:
        raise ImageError(
            f"{place.path}: cannot be read ({error}), expected a complete HDF5 file: copy it again"
        ) from error
    with file:
        array = file.get(place.key) if place.key else None
        if not isinstance(array, h5py.Dataset):
            held: list[str] = []
            file.visititems(
                lambda name, node: held.append(name) if isinstance(node, h5py.Dataset) else None
            )
            raise no_array(place, held)
        yield array, ""


@contextmanager
def _zarr_array(place: ArrayPlace) -> Iterator[tuple[Any, str]]:
    image = open_zarr(place)
    yield image.array, image.axes


def open_zarr(place: ArrayPlace) -> ZarrImage:
    """An array in a Zarr store on this machine, with what is known about its axes.

    Raises:
        ImageError: no such store, or no array there.
    """
    if not place.path.is_dir():
        raise ImageError(
            f"{place.path}: does not exist, expected a Zarr store{suggestion(place.path)}"
        )
    return find_zarr(place.path, place.key, name=str(place))
