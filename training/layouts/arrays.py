"""Arrays inside HDF5 files and Zarr stores, of which only the wanted part is read.

The axes of a multiscale OME-Zarr image are those that it names. All other arrays must have the
axes that data.axes names, images with channels before them where there are any: (c)(z)yx.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.layouts.sources import Part, Wanted, slices
from zoo_models.errors import ImageError
from zoo_models.prediction.stored_arrays import ArrayPlace, array_place, opened_array


def as_array(text: str, folder: Path) -> Array | None:
    """`file.h5:/key` or `store.zarr/key` as an array, None for a path of another kind."""
    place = array_place(text, folder)
    return Array(place.path, place.key) if place else None


class Array(ArrayPlace):
    """An array in an HDF5 file or a Zarr store, as a source of images or labels."""

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

    def _part(self, wanted: Wanted, *, channels: int) -> Part:
        """Pixels c(z)yx as stored."""
        with opened_array(self) as (array, named):
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

    def _axes(self, shape: tuple[int, ...], named: str, wanted: Wanted) -> str:
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
