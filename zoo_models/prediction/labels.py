"""Label images from and to files: (z)yx integers, 0 is the background."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import ImageError, OutputExistsError
from zoo_models.prediction.decoding import JPEG_SUFFIXES, TIFF_SUFFIXES, VoxelSize, decode
from zoo_models.prediction.label_store import LabelStore
from zoo_models.prediction.ome_tiff import write_ome_tiff


def read_labels(path: Path | str) -> NDArray[np.integer]:
    """Read a label image, (z)yx in the integer dtype of the file.

    A palette PNG gives its indices. Floats are accepted where every value is a whole number
    (some programs store labels so), and a mask of booleans becomes 0 and 1. Of a Zarr store, the
    label image that `spoco-zoo predict` has written.

    Raises:
        ImageError: no such file or not an image (see decode), several channels, fractions,
            negative labels, JPEG (which changes values).
    """
    path = Path(path)
    if path.suffix == ".zarr":
        return LabelStore.open(path).read()
    if path.suffix.lower() in JPEG_SUFFIXES and path.is_file():
        raise ImageError(
            f"{path}: is a JPEG, which changes labels, expected TIFF or PNG: export it again"
        )
    decoded = decode(path, keep_palette=True)
    data = decoded.data
    if decoded.axes.startswith("c"):
        if not decoded.colour or not all(np.array_equal(data[0], c) for c in data[1:3]):
            raise ImageError(
                f"{path}: has {len(data)} channels, expected one label per pixel: "
                "save the labels as one channel of integers"
            )
        data = data[0]
    return _integers(np.ascontiguousarray(data), path)


def write_labels(
    path: Path | str,
    labels: NDArray[np.integer],
    *,
    axes: str,
    voxel_size_um: VoxelSize | None = None,
    overwrite: bool = False,
) -> None:
    """Write labels as OME-TIFF of uint32, compressed without loss; equal labels, equal bytes.

    The file appears under its name only when it is complete. Missing folders are made.

    Args:
        path: name ending in .tif or .tiff, by custom `*.ome.tif`.
        labels: (z)yx integers from 0 to 2^32 - 1.
        axes: 'yx' or 'zyx', as `labels`; 'tyx' and 'tzyx' for stacks of images over time.
        voxel_size_um: one size per axis, in micrometres; of a stack, of the last axes.
        overwrite: replace an existing file.

    Raises:
        OutputExistsError: the file exists and `overwrite` is False.
        ImageError: another suffix, other axes, labels outside the range, or a path where no
            file can be written.
    """
    path = Path(path)
    _expect_writable(path, labels, axes, voxel_size_um)
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already, expected a new name: choose another or pass --overwrite"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            write_ome_tiff(temporary, labels.astype(np.uint32), axes, voxel_size_um)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({error.strerror or error}), expected a writable folder "
            "with room: choose another"
        ) from error


def _expect_writable(
    path: Path, labels: NDArray[np.integer], axes: str, voxel_size_um: VoxelSize | None
) -> None:
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise ImageError(f"{path}: labels are written as OME-TIFF, expected a name ending in .tif")
    if axes not in ("yx", "zyx", "tyx", "tzyx") or labels.ndim != len(axes):
        raise ImageError(
            f"{path}: labels of shape {labels.shape} with axes '{axes}', expected 'yx', 'zyx', "
            "'tyx' or 'tzyx' and as many dimensions"
        )
    spaces = range(2, len(axes.removeprefix("t")) + 1)
    if voxel_size_um is not None and len(voxel_size_um) not in spaces:
        raise ImageError(
            f"{path}: voxel size {voxel_size_um} for axes '{axes}', expected one size per axis"
        )
    if labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ImageError(
            f"{path}: labels of shape {labels.shape} and type {labels.dtype}, expected at least "
            "one pixel of an integer type"
        )
    if labels.min() < 0 or labels.max() >= 2**32:
        raise ImageError(
            f"{path}: labels from {labels.min()} to {labels.max()}, expected 0 to 2^32 - 1: "
            "relabel them"
        )


def _integers(data: NDArray[Any], path: Path) -> NDArray[np.integer]:
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind not in "uif":
        raise ImageError(f"{path}: has labels of type {data.dtype}, expected integers")
    if data.dtype.kind == "f":
        whole = np.isfinite(data) & (data == np.floor(data)) & (np.abs(data) < 2**53)
        if not whole.all():
            raise ImageError(
                f"{path}: {int((~whole).sum())} of {data.size} pixels are fractions or not "
                "finite, expected whole numbers: name the label image, not a probability map"
            )
        data = data.astype(np.int64)
    if data.min() < 0:
        raise ImageError(
            f"{path}: has labels down to {data.min()}, expected 0 (background) or more: relabel it"
        )
    integers: NDArray[np.integer] = data
    return integers
