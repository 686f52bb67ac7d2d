"""Where the pixels of one sample come from; every source is read when asked, and not before.

A source gives the part of an image that a configuration asks for, and the size of the whole, so
that image and labels are compared whole even where a part of them is read::

    whole    |<----------------- 1000 sections ----------------->|
    crop          |<-- z = [100, 180] -->|
    part          |<---- 80 sections --->|   the only ones that are decoded
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from zoo_models.errors import ImageError
from zoo_models.prediction.images import Image, expect_image, read_image, read_labels

Crop = tuple[tuple[int, int] | None, ...]
"""Start and stop per axis, None for the whole axis."""


@dataclass(frozen=True)
class Wanted:
    """What a network takes: axes 'yx' or 'zyx', channels, and which part; `crop` as the axes."""

    axes: str
    channels: int
    crop: Crop

    @property
    def ndim(self) -> int:
        return len(self.axes)


@dataclass(frozen=True, eq=False)
class Part:
    """Pixels of an image, c(z)yx float32, or of labels, (z)yx integers, and the (z)yx size of the
    whole that they are a part of."""

    data: NDArray[Any]
    whole: tuple[int, ...]


class ImageSource(Protocol):
    def image(self, wanted: Wanted) -> Part:
        """Raises ImageError where the file is missing, damaged or not what is wanted."""
        ...


class LabelSource(Protocol):
    """Its str() is where the labels are, for messages."""

    def labels(self, wanted: Wanted) -> Part:
        """Raises ImageError where the file is missing, damaged or holds no labels."""
        ...


@dataclass(frozen=True)
class Pair:
    """One annotated image: a name, and where its pixels and its labels are."""

    name: str
    image: ImageSource
    labels: LabelSource


@dataclass(frozen=True)
class ImageFile:
    """A TIFF, PNG or JPEG file; as labels TIFF or PNG."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def image(self, wanted: Wanted) -> Part:
        return part_of(read_image(self.path), wanted)

    def labels(self, wanted: Wanted) -> Part:
        return part_of_labels(read_labels(self.path), wanted, place=str(self.path))


@dataclass(frozen=True)
class Photo:
    """A photograph of a set in which grey and colour images, with and without alpha, are mixed.

    A constant alpha is left out. Where three channels are wanted, grey becomes three equal ones.
    """

    path: Path

    def image(self, wanted: Wanted) -> Part:
        image = read_image(self.path)
        data = image.data
        if len(data) == 4 and data[3].min() == data[3].max():
            data = data[:3]
        if len(data) == 1 and wanted.channels == 3:
            data = np.repeat(data, 3, axis=0)
        return part_of(replace(image, data=data), wanted)


@dataclass(frozen=True)
class Sections:
    """A stack of which every section is a file; only the sections of the crop are opened."""

    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return str(self.paths[0].parent)

    def image(self, wanted: Wanted) -> Part:
        chosen, in_plane = self._chosen(wanted)
        return self._stacked([ImageFile(path).image(in_plane) for path in chosen], chosen, axis=1)

    def labels(self, wanted: Wanted) -> Part:
        chosen, in_plane = self._chosen(wanted)
        return self._stacked([ImageFile(path).labels(in_plane) for path in chosen], chosen, axis=0)

    def _chosen(self, wanted: Wanted) -> tuple[tuple[Path, ...], Wanted]:
        if wanted.axes != "zyx":
            raise ImageError(
                f"{self}: is a stack of {len(self.paths)} sections, expected 2D images: "
                'set data.axes = "zyx" and use a 3D network'
            )
        (z,) = slices(wanted.crop[:1], (len(self.paths),), axes="z", place=str(self))
        return self.paths[z], replace(wanted, axes="yx", crop=wanted.crop[1:])

    def _stacked(self, parts: list[Part], chosen: tuple[Path, ...], *, axis: int) -> Part:
        for path, part in zip(chosen, parts, strict=True):
            if part.whole != parts[0].whole:
                raise ImageError(
                    f"{path}: is a section of {part.whole} pixels, expected {parts[0].whole} as "
                    f"{chosen[0].name}: export the stack again"
                )
        data = np.stack([part.data for part in parts], axis=axis)
        return Part(data, (len(self.paths), *parts[0].whole))


@dataclass(frozen=True)
class Derived:
    """Labels that are computed from those of a source, in the part that is read."""

    source: LabelSource
    change: Callable[[NDArray[np.integer]], NDArray[np.integer]]

    def __str__(self) -> str:
        return str(self.source)

    def labels(self, wanted: Wanted) -> Part:
        part = self.source.labels(wanted)
        return Part(self.change(part.data), part.whole)


def components(mask: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every connected region of a mask an instance; pixels that touch at a corner are connected."""
    found, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return np.asarray(found, np.int32)


def part_of(image: Image, wanted: Wanted) -> Part:
    """The wanted part of an image, which must have the wanted axes and channels."""
    expect_image(image, axes=wanted.axes, channels=wanted.channels)
    whole = image.data.shape[1:]
    crop = slices(wanted.crop, whole, axes=wanted.axes, place=str(image.path))
    return Part(image.data[:, *crop], whole)


def part_of_labels(labels: NDArray[np.integer], wanted: Wanted, *, place: str) -> Part:
    """The wanted part of labels (z)yx."""
    if labels.ndim != wanted.ndim:
        raise ImageError(
            f"{place}: labels of shape {labels.shape}, expected {wanted.ndim} dimensions "
            f"({', '.join(wanted.axes)}) as the image."
        )
    crop = slices(wanted.crop, labels.shape, axes=wanted.axes, place=place)
    return Part(labels[crop], labels.shape)


def slices(crop: Crop, shape: tuple[int, ...], *, axes: str, place: str) -> tuple[slice, ...]:
    """The crop as slices.

    Raises:
        ImageError: it reaches beyond the image.
    """
    for axis, limits, size in zip(axes, crop, shape, strict=True):
        if limits is not None and limits[1] > size:
            raise ImageError(
                f"{place}: is {size} long along {axis}, but data.crop asks for "
                f"{list(limits)}: lower its end"
            )
    return tuple(slice(*(limits or (None,))) for limits in crop)
