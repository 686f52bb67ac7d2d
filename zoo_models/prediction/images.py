"""Images from files, brought once to c(z)yx float32, and refused where they cannot be used."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import ImageError
from zoo_models.prediction.decoding import SUFFIXES, Decoded, VoxelSize, decode, suggestion
from zoo_models.prediction.labels import read_labels, write_labels

__all__ = [
    "Image",
    "expect_image",
    "find_images",
    "read_image",
    "read_labels",
    "write_labels",
]

KINDS = {"yx": "2D image (y, x)", "zyx": "3D stack (z, y, x)"}


@dataclass(frozen=True, eq=False)
class Image:
    """One image.

    data: c(z)yx float32, values as in the file, all finite.
    axes: 'cyx' or 'czyx'.
    source_dtype: dtype in the file, such as 'uint16'.
    voxel_size_um: (z)yx in micrometres where the file tells it.
    path: the file.
    """

    data: NDArray[np.float32]
    axes: str
    source_dtype: str
    voxel_size_um: VoxelSize | None
    path: Path


def read_image(path: Path | str, *, channel: int | None = None) -> Image:
    """Read a TIFF, PNG or JPEG image; with `channel`, only that channel (from 0).

    A colour image whose channels are all equal (alpha constant) is grey and becomes one channel.

    Raises:
        ImageError: no such file or not an image (see decode), pixels that are not finite real
            numbers, a channel that the image does not have.
    """
    path = Path(path)
    decoded = decode(path)
    data = _with_channel_axis(decoded)
    expect_real(data.dtype, path)
    if channel is not None:
        expect_channel(channel, len(data), path)
        data = data[channel : channel + 1]
    elif decoded.colour and _is_grey(data):
        data = data[:1]
    return Image(
        data=_finite_float32(data, path),
        axes="c" + decoded.axes.lstrip("c"),
        source_dtype=str(decoded.data.dtype),
        voxel_size_um=decoded.voxel_size_um,
        path=path,
    )


def expect_image(image: Image, *, axes: str, channels: int) -> None:
    """Check that an image fits a network that takes `axes` ('yx' or 'zyx') and `channels`.

    Raises:
        ImageError: a stack for a 2D network, an image for a 3D network, another number of
            channels.
    """
    found = Found(str(image.path), image.axes[1:], image.data.shape[1:], len(image.data))
    expect_found(found, axes=axes, channels=channels)


@dataclass(frozen=True)
class Found:
    """What an image is: its name in errors, 'yx' or 'zyx', pixels along these, channels."""

    name: str
    axes: str
    shape: tuple[int, ...]
    channels: int


def expect_found(found: Found, *, axes: str, channels: int) -> None:
    """As expect_image, for an image whose pixels are not read.

    Raises:
        ImageError: as expect_image.
    """
    if found.axes != axes:
        advice = (
            "save its planes as files, or use a 3D network"
            if axes == "yx"
            else "save the planes as one stack (OME-TIFF with axes zyx), or use a 2D network"
        )
        raise ImageError(
            f"{found.name}: is a {KINDS[found.axes]} of {found.shape} pixels, "
            f"expected a {KINDS[axes]}: {advice}"
        )
    if found.channels != channels:
        kind = " (colour)" if found.channels in (3, 4) else ""
        advice = (
            "take one channel with --channel 0 (or another number)"
            if channels == 1
            else "use images with the channels that the network was trained on"
        )
        raise ImageError(
            f"{found.name}: has {found.channels} channel(s){kind}, expected {channels}: {advice}"
        )


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Image files: files as given, of folders the images directly inside, sorted by name.

    Hidden files are left out; a file named twice is given once.

    Raises:
        ImageError: a path does not exist, a folder has no images, no path at all.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        found.update(dict.fromkeys(_images_in(path) if path.is_dir() else [_existing(path)]))
    if not found:
        raise ImageError("found no image path, expected at least one: name image files or folders")
    return list(found)


def _images_in(folder: Path) -> list[Path]:
    images = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and entry.is_file() and not entry.name.startswith(".")
    )
    if not images:
        raise ImageError(
            f"{folder}: is a folder without images, expected files with the suffix "
            f"{' '.join(SUFFIXES)}: name another folder or the files"
        )
    return images


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ImageError(
            f"{path}: does not exist, expected an image file or a folder{suggestion(path)}"
        )
    return path


def _with_channel_axis(decoded: Decoded) -> NDArray[Any]:
    return decoded.data if decoded.axes.startswith("c") else decoded.data[np.newaxis]


def expect_real(dtype: np.dtype[Any], name: Path | str) -> None:
    """Refuse pixels that are no real numbers, with ImageError."""
    if dtype.kind not in "buif":
        raise ImageError(
            f"{name}: has pixels of type {dtype}, expected integers or real floats: "
            "convert it, for example to its magnitude"
        )


def expect_channel(channel: int, channels: int, name: Path | str) -> None:
    """Refuse a channel that an image does not have, with ImageError."""
    if not 0 <= channel < channels:
        raise ImageError(
            f"{name}: has {channels} channel(s), no channel {channel}: expected 0 to {channels - 1}"
        )


def _is_grey(data: NDArray[Any]) -> bool:
    """Whether the colours of c(z)yx are equal; an even channel count ends with alpha."""
    colours, alpha = (data[:-1], data[-1]) if len(data) % 2 == 0 else (data, data[:0])
    same = all(np.array_equal(colours[0], other) for other in colours[1:])
    return same and (alpha.size == 0 or bool(alpha.min() == alpha.max()))


def _finite_float32(data: NDArray[Any], path: Path) -> NDArray[np.float32]:
    values = as_float32(data)
    if data.dtype.kind == "f" and not np.isfinite(values).all():
        raise not_finite(values, f"{path}: has")
    return values


def as_float32(data: NDArray[Any]) -> NDArray[np.float32]:
    """The pixels as contiguous float32; beyond float32 they become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(data, dtype=np.float32)


def not_finite(values: NDArray[np.float32], beginning: str) -> ImageError:
    """The error for values of which some are NaN or infinite."""
    nan, bad = int(np.isnan(values).sum()), int((~np.isfinite(values)).sum())
    return ImageError(
        f"{beginning} {nan} NaN and {bad - nan} infinite of {values.size} pixels, "
        "expected finite values: replace them before prediction"
    )
