"""Arrays inside HDF5 files and Zarr stores, of which only the wanted part is read.

The axes of a multiscale OME-Zarr image are those that it names. All other arrays must have the
axes that data.axes names, images with channels before them where there are any: (c)(z)yx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.layouts.sources import Part, Wanted, slices
from zoo_models.errors import ImageError
from zoo_models.prediction.decoding import suggestion

_HDF5 = re.compile(r"(?P<file>.*\.(?:h5|hdf5|hdf))(?::/?(?P<key>.*))?")
_ZARR = re.compile(r"(?P<file>.*?\.zarr)(?:/(?P<key>.*))?")


def as_array(text: str, folder: Path) -> Array | None:
    """`file.h5:/key` or `store.zarr/key` as an array, None for a path of another kind."""
    found = _HDF5.fullmatch(text) or _ZARR.fullmatch(text)
    return Array(folder / found["file"], (found["key"] or "").strip("/")) if found else None


@dataclass(frozen=True)
class Array:
    """The array `key` inside an HDF5 file or a Zarr store; of a multiscale OME-Zarr group the
    finest resolution."""

    path: Path
    key: str

    def __str__(self) -> str:
        return f"{self.path}{'/' if self._is_zarr else ':/'}{self.key}"

    def image(self, wanted: Wanted) -> Part:
        """Part of an image (c)(z)yx of integers or finite real floats."""
        part = self._part(wanted, channels=wanted.channels)
        if part.data.dtype.kind not in "buif":
            raise ImageError(
                f"{self}: has pixels of type {part.data.dtype}, expected integers or real floats: "
                "convert it, for example to its magnitude"
            )
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is refused below
            values = np.ascontiguousarray(part.data, np.float32)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ImageError(
                f"{self}: {bad} of {values.size} pixels are not finite, expected numbers: "
                "replace them before training"
            )
        return Part(values, part.whole)

    def labels(self, wanted: Wanted) -> Part:
        """Part of labels (z)yx, with or without an axis of length 1 before them.

        Negative labels, by custom regions to ignore, become background.
        """
        part = self._part(wanted, channels=1)
        data = part.data[0]
        if data.dtype.kind == "f" and (data == np.floor(data)).all() and (abs(data) < 2**53).all():
            data = data.astype(np.int64)
        if data.dtype.kind not in "bui":
            raise ImageError(
                f"{self}: has labels of type {data.dtype}, expected whole numbers: name the label "
                "array, not a probability map"
            )
        return Part(np.where(data > 0, data, 0), part.whole)

    @property
    def _is_zarr(self) -> bool:
        return self.path.suffix == ".zarr"

    def _part(self, wanted: Wanted, *, channels: int) -> Part:
        """Pixels c(z)yx as stored."""
        opened = _zarr_array if self._is_zarr else _hdf5_array
        with opened(self.path, self.key) as (array, named):
            axes = self._axes(tuple(array.shape), named, wanted)
            size = dict(zip(axes, array.shape, strict=True))
            if size.get("c", 1) != channels:
                raise ImageError(
                    f"{self}: has {size['c' if 'c' in size else axes[0]]} channel(s), expected "
                    f"{channels}: name another array, or set network.in_channels"
                )
            whole = tuple(size[a] for a in wanted.axes)
            limits = slices(wanted.crop, whole, axes=wanted.axes, place=str(self))
            crop = dict(zip(wanted.axes, limits, strict=True))
            data = np.asarray(array[tuple(crop.get(a, slice(None)) for a in axes)])
        order = [*(a for a in axes if a not in wanted.axes), *wanted.axes]  # all of length 1, or c
        data = data.transpose([axes.index(a) for a in order])
        return Part(data.reshape(channels, *data.shape[-wanted.ndim :]), whole)

    def _axes(self, shape: tuple[int, ...], named: str | None, wanted: Wanted) -> str:
        """One name per dimension of the array: those of `wanted`, c, and others of length 1."""
        axes = named or ("c" + wanted.axes)[-len(shape) :]
        if len(axes) == len(shape):
            long = {a for a, n in zip(axes, shape, strict=True) if n > 1 or a in wanted.axes}
            if long - {"c"} == set(wanted.axes):
                return axes
        names = f" and the axes {named}" if named else ""
        raise ImageError(
            f"{self}: has the shape {shape}{names}, expected the axes {wanted.axes}, for images "
            "with channels before them: store it so, or set data.axes"
        )


@contextmanager
def _hdf5_array(path: Path, key: str) -> Iterator[tuple[Any, str | None]]:
    import h5py  # type: ignore[import-untyped]  # here: most trainings read no HDF5

    if not path.is_file():
        raise ImageError(f"{path}: does not exist, expected an HDF5 file{suggestion(path)}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error}), expected a complete HDF5 file: copy it again"
        ) from error
    with file:
        array = file.get(key) if key else None
        if not isinstance(array, h5py.Dataset):
            held: list[str] = []
            file.visititems(
                lambda name, node: held.append(name) if isinstance(node, h5py.Dataset) else None
            )
            raise _no_array(f"{path}:/{key}", held)
        yield array, None


@contextmanager
def _zarr_array(path: Path, key: str) -> Iterator[tuple[Any, str | None]]:
    import zarr  # here: most trainings read no Zarr

    if not path.is_dir():
        raise ImageError(f"{path}: does not exist, expected a Zarr store{suggestion(path)}")
    try:
        node = zarr.open(path, mode="r", path=key)
    except (OSError, KeyError, ValueError) as error:
        held = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        raise _no_array(f"{path}/{key}", held) from error
    if isinstance(node, zarr.Array):
        yield node, _axes_from_above(path, key)
        return
    scales = _multiscales(node.attrs)
    if not scales:
        raise _no_array(f"{path}/{key}", sorted(node.keys()))
    yield node[scales[0]["datasets"][0]["path"]], _axis_names(scales[0])


def _no_array(place: str, held: list[str]) -> ImageError:
    names = ", ".join(held[:5]) + (" and more" if len(held) > 5 else "")
    return ImageError(f"{place}: is no array, found {names or 'nothing'} inside: name an array")


def _axes_from_above(path: Path, key: str) -> str | None:
    """The axes of an array that a multiscale group above it lists among its resolutions."""
    import zarr

    names = key.split("/") if key else []
    for depth in range(len(names)):
        try:
            group = zarr.open_group(path, mode="r", path="/".join(names[:depth]))
        except (OSError, KeyError, ValueError):
            continue  # a folder that is no group says nothing about axes
        for scale in _multiscales(group.attrs):
            if "/".join(names[depth:]) in [level["path"] for level in scale["datasets"]]:
                return _axis_names(scale)
    return None


def _multiscales(attributes: Any) -> list[dict[str, Any]]:
    """OME-Zarr 0.5 keeps them under 'ome', 0.4 and older did not."""
    found: list[dict[str, Any]] = attributes.get("ome", attributes).get("multiscales", [])
    return found


def _axis_names(scale: dict[str, Any]) -> str | None:
    """'tczyx' or a part of it; None in OME-Zarr 0.2 and older, which name no axes."""
    axes = scale.get("axes", [])
    return "".join(axis if isinstance(axis, str) else axis["name"] for axis in axes).lower() or None
