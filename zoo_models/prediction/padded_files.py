"""Padded images and cropped results as files: OME-TIFF with its record beside it, TIFF or .npy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError, ImageError, OutputExistsError
from zoo_models.prediction.accepted_sizes import AcceptedSizes
from zoo_models.prediction.decoding import TIFF_SUFFIXES
from zoo_models.prediction.images import Image, expect_image
from zoo_models.prediction.ome_tiff import write_ome_tiff
from zoo_models.prediction.padding import PadRecord, crop_back, pad_to, shape_text, space_axes
from zoo_models.prediction.stored_arrays import read_file

EXACT_IN_FLOAT32 = ("uint8", "int8", "uint16", "int16", "float32")
"""Types that a padded image keeps: of OME-TIFF, and no value is rounded on the way."""

OME_TYPES = (*EXACT_IN_FLOAT32, "uint32", "int32", "float64")


def record_name(padded: Path) -> Path:
    """Where the record of a padded image lies: NAME_padded.tif -> NAME_padded.json."""
    return padded.with_suffix(".json")


def pad_image(
    image: Image, accepted: AcceptedSizes, path: Path, *, overwrite: bool = False
) -> PadRecord:
    """Write an image, padded to the smallest size that a model takes, and its record beside it.

    OME-TIFF, (c)(z)yx. Pixel types that float32 cannot hold exactly, or OME-TIFF not at all, become
    float32, which is what the network reads in the end.

    Raises:
        ImageError: other axes or channels than the model takes, larger than its one size, or
            `path` cannot be written.
        OutputExistsError: `path` or its record exists and `overwrite` is False.
    """
    expect_image(image, axes=accepted.axes, channels=accepted.channels)
    shape = image.data.shape[1:]
    try:
        padded_shape = accepted.smallest(shape)
    except GeometryError as error:
        raise ImageError(f"{image.path}: {error}") from error
    record = PadRecord(
        spoco_zoo_padding=1,
        source=image.path.name,
        model=accepted.model,
        axes=accepted.axes,
        shape=shape,
        padded_shape=padded_shape,
        voxel_size_um=image.voxel_size_um,
    )
    pixels = pad_to(_stored(image), padded_shape)
    beside = record_name(path)
    with (
        _replacing(beside, overwrite=overwrite) as temporary_record,
        _replacing(path, overwrite=overwrite) as temporary,
    ):
        _write_tiff(temporary, pixels, record)
        temporary_record.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        beside.unlink(missing_ok=True)  # never an old record beside a new image
    return record


def crop_predicted(
    predicted: Path, record: PadRecord, out: Path, *, overwrite: bool = False
) -> tuple[tuple[int, ...], str]:
    """Crop what was predicted from a padded image to the image's size; gives (shape, dtype).

    Values and dtype are kept. `predicted`: TIFF or .npy with the padded axes among its axes, at any
    place (labels, embeddings, a batch of 1). `out`: .npy keeps the order of the axes; .tif is an
    OME-TIFF (c)(z)yx with the image's voxel size.

    Raises:
        ImageError: not such a file, no axes of the padded size, or what TIFF cannot hold.
        OutputExistsError: `out` exists and `overwrite` is False.
    """
    if out.suffix.lower() not in (*TIFF_SUFFIXES, ".npy"):
        raise ImageError(f"{out}: expected a name ending in .tif or .npy")
    found = read_file(predicted)
    array = found.data
    try:
        axes = space_axes(array.shape, record, found.names)
    except GeometryError as error:
        raise ImageError(f"{predicted}: {error}") from error
    array = crop_back(array, axes, record.shape)
    if out.suffix.lower() == ".npy":
        with _replacing(out, overwrite=overwrite) as temporary, temporary.open("wb") as file:
            np.save(file, array)
        return array.shape, array.dtype.name
    stored = _as_czyx(array, axes)
    if stored.ndim > len(axes) + 1 or stored.dtype.name not in OME_TYPES:
        raise ImageError(
            f"{predicted}: has the shape {shape_text(array.shape)} and type {array.dtype}, "
            f"expected (c){record.axes} of a type that OME-TIFF has: write "
            f"{out.with_suffix('.npy').name} instead"
        )
    with _replacing(out, overwrite=overwrite) as temporary:
        _write_tiff(temporary, stored, record)
    return stored.shape, stored.dtype.name


def _stored(image: Image) -> NDArray[Any]:
    """The image as it is written: without an axis for one channel, in its file's type if it may."""
    name = np.dtype(image.source_dtype).name  # of either byte order
    kept = name if name in EXACT_IN_FLOAT32 else "uint8" if name == "bool" else "float32"
    return (image.data if len(image.data) > 1 else image.data[0]).astype(kept)


def _as_czyx(array: NDArray[Any], axes: Sequence[int]) -> NDArray[Any]:
    """`axes` last, other axes before them, those of length 1 dropped."""
    others = [i for i in range(array.ndim) if i not in axes and array.shape[i] != 1]
    dropped = [i for i in range(array.ndim) if i not in axes and i not in others]
    moved = array.transpose(*dropped, *others, *axes)
    return moved.reshape(moved.shape[len(dropped) :])


def _write_tiff(path: Path, pixels: NDArray[Any], record: PadRecord) -> None:
    channels = "c" * (pixels.ndim - len(record.axes))
    write_ome_tiff(path, pixels, channels + record.axes, record.voxel_size_um)


@contextmanager
def _replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A name in the same folder to write to; renamed to `path` when all went well, else removed."""
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already, expected a new name: choose another or pass --overwrite"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ImageError(
            f"{error.filename2 or error.filename or path}: cannot be written "
            f"({error.strerror or error}), expected a writable folder with room: choose another"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
