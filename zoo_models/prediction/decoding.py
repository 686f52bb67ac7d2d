"""Image files to arrays: TIFF (plain, ImageJ, OME), PNG and JPEG, pixels unchanged.

The axes come from the file where it names them. Where it does not:

    a pile of pages               ->  zyx, a stack
    (y, x, n) with n <= 4         ->  cyx, channels last
    anything else                 ->  an error; axes are never guessed from sizes alone
"""

import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray

from zoo_models.errors import ImageError
from zoo_models.prediction.voxel_size import imagej_voxel_size, ome_voxel_size

TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
JPEG_SUFFIXES = (".jpg", ".jpeg")
SUFFIXES = TIFF_SUFFIXES + PNG_SUFFIXES + JPEG_SUFFIXES

VoxelSize = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels as stored, axes among c, z, y, x in this order, no axis but y and x of length 1.

    `colour`: the channels are those of a photograph (grey + alpha, RGB, RGBA).
    `voxel_size_um`: one size per space axis, in micrometres, where the file tells it.
    """

    data: NDArray[Any]
    axes: str
    colour: bool
    voxel_size_um: VoxelSize | None


def decode(path: Path, *, keep_palette: bool = False) -> Decoded:
    """Read one image file. `keep_palette`: the indices of a palette PNG, not its colours.

    Raises:
        ImageError: no such file, a folder, an unknown format, a damaged or truncated file,
            several images in one file, axes other than c, z, y, x, no pixels.
    """
    expect_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix in TIFF_SUFFIXES:
            decoded = _decode_tiff(path)
        else:
            decoded = _decode_picture(path, keep_palette=keep_palette)
    except ImageError:
        raise
    except Exception as error:  # every decoder raises its own classes, on any damage
        raise damaged(path, error) from error
    if decoded.data.size == 0:
        raise ImageError(
            f"{path}: has no pixels (shape {decoded.data.shape}), expected at least one: "
            "export the image again"
        )
    return decoded


def expect_file(path: Path) -> None:
    """Check that `path` is a file with one of the suffixes that are read.

    Raises:
        ImageError: it is not.
    """
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected an image file: name a file inside it")
    if not path.exists():
        raise ImageError(f"{path}: does not exist, expected an image file{suggestion(path)}")
    if path.suffix.lower() not in SUFFIXES:
        raise ImageError(
            f"{path}: has the suffix '{path.suffix}', expected one of {' '.join(SUFFIXES)}: "
            "convert it to TIFF or PNG"
        )


def suggestion(path: Path) -> str:
    """': did you mean ...' with what lies near a path that does not exist, else ': check ...'."""
    folder = path.parent
    if not folder.is_dir():
        existing = next((p for p in folder.parents if p.is_dir()), Path())
        return f": there is no folder {folder} either; {existing} exists"
    names = {entry.name.lower(): entry.name for entry in folder.iterdir()}
    near = difflib.get_close_matches(path.name.lower(), names, n=3, cutoff=0.6)
    if not near:
        return f": check the name, the folder {folder} has {len(names)} other entries"
    return f": did you mean {' or '.join(names[name] for name in near)}?"


def damaged(path: Path, error: Exception) -> ImageError:
    """The error for an image file that a decoder gave up on."""
    return ImageError(
        f"{path}: cannot be read ({first_line(error)}); expected a complete "
        f"{path.suffix[1:].upper()} image: copy or export the file again"
    )


def _decode_tiff(path: Path) -> Decoded:
    with tifffile_messages() as messages, tifffile.TiffFile(path) as tiff:
        series = only_series(path, tiff)
        data, stored_axes = series.asarray(), series.axes
        size_by_axis = tiff_sizes_um(tiff)
    expect_all_pixels(messages)
    data, axes, colour = _normalise_axes(path, data, stored_axes)
    sizes = [size_by_axis[a] for a in axes if a in size_by_axis]
    space = axes.lstrip("c")
    return Decoded(data, axes, colour, tuple(sizes) if len(sizes) == len(space) else None)


def only_series(path: Path, tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The image of a TIFF file, with its pyramid as levels.

    Raises:
        ImageError: the file holds several images.
    """
    if len(tiff.series) != 1:
        raise ImageError(
            f"{path}: holds {len(tiff.series)} separate images, expected one: "
            "save the one to be used as a file of its own"
        )
    return tiff.series[0]


def tiff_sizes_um(tiff: tifffile.TiffFile) -> dict[str, float]:
    """Axis (z, y, x) -> micrometres, where OME-XML or ImageJ's tags tell them."""
    if tiff.ome_metadata:
        return ome_voxel_size(tiff.ome_metadata)
    if tiff.imagej_metadata:
        tags = tiff.pages.first.tags
        resolutions = [tags[name].value if name in tags else None for name in _RESOLUTIONS]
        return imagej_voxel_size(tiff.imagej_metadata, *resolutions)
    return {}


_RESOLUTIONS = ("XResolution", "YResolution")
# tifffile only logs that pages are missing, and gives those that are left, or zeros.
_LOST_PIXELS = re.compile(
    "invalid page offset|invalid offset to|circular|corrupted file|corrupted tag list|missing"
    "|incompletely|failed to re|series raised|subset|incorrect Strip"
    "|TiffTag 270 "  # the description: without it the axes are lost
)


def expect_all_pixels(messages: list[str]) -> None:
    """Raise ValueError where tifffile logged that pages or axes are lost."""
    damage = [message for message in messages if _LOST_PIXELS.search(message)]
    if damage:
        raise ValueError(f"truncated or damaged: {damage[0]}")


def named_axes(shape: tuple[int, ...], stored: str) -> tuple[str, bool]:
    """A letter for each axis of a TIFF, '1' for those that are dropped, and whether it is coloured.

    `stored` are tifffile's letters. Axes of length 1 (but y and x) are dropped, unnamed ones named
    as this file's docstring says; others keep their letter, in lower case.
    """
    kept = [axis in "YX" or n != 1 for axis, n in zip(stored, shape, strict=True)]
    axes = "".join(axis for axis, keep in zip(stored, kept, strict=True) if keep)
    sizes = [n for n, keep in zip(shape, kept, strict=True) if keep]
    colour = "S" in axes
    if axes in ("QYX", "IYX") and sizes[2] <= 4 < min(sizes[:2]):
        axes, colour = "YXC", sizes[2] != 2
    elif "Z" not in axes:
        axes = axes.replace("Q", "Z", 1) if "Q" in axes else axes.replace("I", "Z", 1)
    if "C" not in axes:
        axes = axes.replace("S", "C")
    letters = iter(axes.lower())
    return "".join(next(letters) if keep else "1" for keep in kept), colour


def _normalise_axes(path: Path, data: NDArray[Any], stored: str) -> tuple[NDArray[Any], str, bool]:
    """Drop axes of length 1 (but y and x), name the unnamed, order as c z y x."""
    names, colour = named_axes(data.shape, stored)
    data = data.reshape([n for n, name in zip(data.shape, names, strict=True) if name != "1"])
    axes = names.replace("1", "")
    if axes.count("t") == 1 and set(axes) <= set("tczyx"):
        raise ImageError(
            f"{path}: is a time series of {data.shape[axes.index('t')]} frames, expected one "
            "image or one stack: save its frames as files (or, for a stack, name the axis z)"
        )
    if not set("yx") <= set(axes) <= set("czyx") or len(set(axes)) != len(axes):
        raise ImageError(
            f"{path}: has the axes {stored} of sizes {data.shape}, expected y, x and at most "
            "c (channels) and z: save it as OME-TIFF with these axes"
        )
    order = "".join(axis for axis in "czyx" if axis in axes)
    return data.transpose([axes.index(axis) for axis in order]), order, colour


def _decode_picture(path: Path, *, keep_palette: bool) -> Decoded:
    """PNG or JPEG, yx or cyx."""
    with path.open("rb") as file:
        header = file.read(26)
    if not header:
        raise ValueError("the file is empty")
    if header[:8] == b"\x89PNG\r\n\x1a\n" and header[24] == 16 and header[25] != 0:
        raise ImageError(
            f"{path}: is a PNG of 16 bits with colour or alpha, of which only 8 could be read: "
            "save it as TIFF"
        )
    try:
        mode = iio.immeta(path, plugin="pillow").get("mode")
    except OSError as error:
        raise ValueError("damaged, or another format under this suffix") from error
    options = {"mode": "P"} if mode == "P" and keep_palette else {}
    data = np.asarray(iio.imread(path, plugin="pillow", index=0, **options))
    if data.ndim == 2:
        return Decoded(data, "yx", colour=False, voxel_size_um=None)
    return Decoded(np.moveaxis(data, -1, 0), "cyx", colour=True, voxel_size_um=None)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" :;.") if lines else type(error).__name__


@contextmanager
def tifffile_messages() -> Iterator[list[str]]:
    """Collect what tifffile logs about a file, instead of letting it reach the terminal."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, collector = tifffile.logger(), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
