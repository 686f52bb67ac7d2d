"""Folders of annotated images: images/, labels/ and splits.json, read once into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_models.checkpoint import Normalisation
from zoo_models.errors import ImageError
from zoo_models.prediction.images import expect_image, read_image, read_labels
from zoo_models.splits import data_file, split_names


@dataclass(frozen=True)
class Sample:
    """One annotated image: image c(z)yx float32, already normalised; labels (z)yx int32, 0 is
    background."""

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]


def read_split(
    folder: Path, split: str, *, axes: str, channels: int, normalisation: Normalisation
) -> tuple[Sample, ...]:
    """All samples of one split ("train", "val" or "test") of a data folder.

    Raises:
        ImageError: the folder, its splits.json, an image or a label file is missing or unfit; the
            problems of all files in one message.
    """
    samples, problems = [], []
    for name in split_names(folder, split):
        try:
            samples.append(
                _read_sample(folder, name, axes=axes, channels=channels, norm=normalisation)
            )
        except ImageError as error:
            problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 3} more files)" if len(problems) > 3 else ""
        raise ImageError(" | ".join(problems[:3]) + more)
    return tuple(samples)


def _read_sample(
    folder: Path, name: str, *, axes: str, channels: int, norm: Normalisation
) -> Sample:
    image = read_image(data_file(folder, "images", name))
    expect_image(image, axes=axes, channels=channels)
    path = data_file(folder, "labels", name)
    labels = read_labels(path)
    if labels.shape != image.data.shape[1:]:
        raise ImageError(
            f"{path}: labels of shape {labels.shape}, expected {image.data.shape[1:]} as the image."
        )
    if labels.max(initial=0) >= 2**31:
        raise ImageError(
            f"{path}: label {labels.max()}, expected less than 2^31: number them anew."
        )
    return Sample(name, norm.apply(image.data), np.ascontiguousarray(labels, np.int32))
