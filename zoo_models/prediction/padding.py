"""Images padded to a size that a package takes, for prediction elsewhere, and results cropped back.

`spoco-zoo predict` takes any size. Other software refuses a size that is not minimum + n * step, or
shifts the last tile back to the image's end, off the grid of the network's period, where other
values come out; nothing that a package declares can change that. So the image is padded before, at
the END of each axis only, and the result is cropped after:

    image      0                           S
               |---------------------------|
    padded     |---------------------------|xxxxxxxx|        x: mirrored, numpy's "symmetric"
               0                                    T        T = minimum + n * step >= S, smallest
    predicted  |------------------------------------|
    cropped    |---------------------------|
               0                           S                 the origin has not moved

In a package of `spoco-zoo export`, step and minimum are multiples of 2P (P: the period), and so is
T, which is right in all consumers at once:

    bioimageio.core   its command takes minimum + n * step only; blockwise, the last block is
                      shifted to T - B, on the grid when T is a multiple of P
    ilastik           re-centres the last tile by half of what is missing in it: on the grid when T
                      is a multiple of 2P
    JDLL (Fiji)       shifts the last tile as core does, and takes multiples of step

Pixels nearer to the end than the network's shrink see the mirrored ones, as they do in `predict`,
which mirrors at S where the software mirrors the padded image again at T.

A record beside the padded image says what was added, since other software keeps no metadata.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, model_validator

from zoo_models.errors import GeometryError, InputError
from zoo_models.prediction.decoding import VoxelSize


class PadRecord(BaseModel):
    """What was padded: the JSON file beside a padded image.

    spoco_zoo_padding: version of this layout.
    source: name of the image's file.
    model: name and version of the model that it was padded for.
    axes, shape, padded_shape: the space axes, their sizes before and after.
    voxel_size_um: one size per axis, in micrometres, where the image's file told it.
    """

    model_config = ConfigDict(frozen=True)

    spoco_zoo_padding: Literal[1]
    source: str
    model: str
    axes: Literal["yx", "zyx"]
    shape: tuple[PositiveInt, ...]
    padded_shape: tuple[PositiveInt, ...]
    voxel_size_um: VoxelSize | None = None

    @model_validator(mode="after")
    def _expect_one_size_per_axis(self) -> Self:
        sizes = (self.shape, self.padded_shape, self.voxel_size_um or self.shape)
        if any(len(values) != len(self.axes) for values in sizes):
            raise ValueError("one size for each of the axes expected")
        if any(s > t for s, t in zip(self.shape, self.padded_shape, strict=True)):
            raise ValueError("padded_shape is smaller than shape")
        return self

    @classmethod
    def load(cls, path: Path) -> PadRecord:
        """Read a record.

        Raises:
            InputError: missing, or not written by `spoco-zoo pad`.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected the .json that 'spoco-zoo pad' wrote")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "content"
            raise InputError(
                f"{path}: is not a record of padding ({place}: {first['msg']}), expected the .json "
                "that 'spoco-zoo pad' wrote beside the padded image: pad the image again"
            ) from error


def pad_to(image: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Mirror the last len(shape) axes at their end, up to `shape`; a new array of the same dtype.

    Raises:
        GeometryError: the image is larger than `shape`, or has fewer axes.
    """
    added = [new - old for new, old in zip(shape, image.shape[-len(shape) :], strict=False)]
    if image.ndim < len(shape) or min(added) < 0:
        raise GeometryError(f"An image of shape {image.shape} cannot be padded to {tuple(shape)}.")
    others = [0] * (image.ndim - len(shape))
    return np.pad(image, [(0, n) for n in others + added], "symmetric")


def crop_back(predicted: NDArray[Any], axes: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    """The first `shape` pixels along `axes`; other axes whole. A view."""
    box = [slice(None)] * predicted.ndim
    for axis, size in zip(axes, shape, strict=True):
        box[axis] = slice(0, size)
    return predicted[tuple(box)]


def space_axes(shape: Sequence[int], record: PadRecord, names: str = "") -> tuple[int, ...]:
    """Which axes of a predicted array of `shape` are the padded ones, in the order of the record's.

    They are found by their sizes: other software names axes wrongly, or not at all. `names`, one
    letter for each axis where the file names them, decides when the sizes fit several axes.

    Raises:
        GeometryError: no axes have these sizes, or several have.
    """
    found = [
        axes
        for axes in itertools.combinations(range(len(shape)), len(record.axes))
        if tuple(shape[axis] for axis in axes) == record.padded_shape
    ]
    named = tuple(names.lower().find(axis) for axis in record.axes)
    if named in found:
        return named
    if len(found) == 1:
        return found[0]
    sizes = shape_text(record.padded_shape)
    if found:
        raise GeometryError(
            f"has the shape {shape_text(shape)}, in which {len(found)} choices of axes have the "
            f"padded size {sizes}: save it as OME-TIFF, with named axes"
        )
    already = "" if tuple(shape[-len(record.shape) :]) != record.shape else " (cropped already?)"
    raise GeometryError(
        f"has the shape {shape_text(shape)}{already}, expected axes {record.axes} of {sizes} "
        f"pixels: give what was predicted from {record.source} as padded, or another --pad"
    )


def shape_text(shape: Sequence[int]) -> str:
    """As people write it: 61 x 83."""
    return " x ".join(map(str, shape))
