"""Annotated images of any layout (training/layouts), read once into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.layouts import LAYOUTS, volumes
from training.layouts.sources import Pair, Wanted
from training.sections import DataSection, Split
from zoo_models.checkpoint import Normalisation
from zoo_models.errors import ImageError


@dataclass(frozen=True)
class Sample:
    """One annotated image: image c(z)yx float32, already normalised; labels (z)yx int32, 0 is
    background."""

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]


def read_data(data: DataSection, split: Split, *, channels: int) -> tuple[Sample, ...]:
    """All samples of one split of the data that a configuration names, of any layout.

    Raises:
        ImageError: the folder, its splits, an image or a label file is missing or unfit; the
            problems of all files in one message.
    """
    limits, axes = data.crop.get(split, {}), data.file_axes
    wanted = Wanted(axes, channels, tuple(limits.get(axis) for axis in axes))
    samples = _read_all(_pairs(data, split), wanted, Normalisation(data.gain, data.offset))
    return tuple(p for s in samples for p in _planes(s)) if data.planes else samples


def _read_all(pairs: list[Pair], wanted: Wanted, norm: Normalisation) -> tuple[Sample, ...]:
    samples, problems = [], []
    for pair in pairs:
        try:
            samples.append(_read_sample(pair, wanted, norm))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 3} more files)" if len(problems) > 3 else ""
        raise ImageError(" | ".join(problems[:3]) + more)
    return tuple(samples)


def _pairs(data: DataSection, split: Split) -> list[Pair]:
    folder = Path(data.folder)
    if data.layout != "volumes":
        return LAYOUTS[data.layout].pairs(folder, split)
    if split not in data.volumes:
        raise ImageError(
            f"data.volumes names no split {split!r}, found {', '.join(data.volumes)}: add "
            f"[data.volumes.{split}]"
        )
    paths = data.volumes[split]
    return volumes.pairs(folder, images=paths.images, labels=paths.labels)


def _read_sample(pair: Pair, wanted: Wanted, norm: Normalisation) -> Sample:
    image, labels = pair.image.image(wanted), pair.labels.labels(wanted)
    if labels.whole != image.whole:
        raise ImageError(
            f"{pair.labels}: labels of shape {labels.whole}, expected {image.whole} as the image."
        )
    if labels.data.max(initial=0) >= 2**31:
        raise ImageError(
            f"{pair.labels}: label {labels.data.max()}, expected less than 2^31: number them anew."
        )
    return Sample(pair.name, norm.apply(image.data), np.ascontiguousarray(labels.data, np.int32))


def _planes(sample: Sample) -> list[Sample]:
    """The planes of a stack. What is one object in 3D is, in a plane, as many as it has pieces."""
    return [
        Sample(f"{sample.name}_z{z:03d}", np.ascontiguousarray(sample.image[:, z]), _pieces(labels))
        for z, labels in enumerate(sample.labels)
    ]


def _pieces(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Connected pieces (also over corners) of every id, numbered from 1 in the order of the ids."""
    pieces, number = np.zeros_like(labels), 0
    for instance in np.unique(labels[labels > 0]):
        own, count = ndimage.label(labels == instance, np.ones((3, 3)))
        pieces[own > 0] = own[own > 0] + number
        number += count
    return pieces
