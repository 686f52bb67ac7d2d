"""A picture to look at: the image in grey with each instance outlined in its own colour."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo_models.errors import ImageError


def write_overlay(path: Path, image: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
    """PNG of an image (z)yx and its labels; of a stack, the middle plane.

    Raises:
        ImageError: no file can be written there; none is left half-written.
    """
    if image.ndim == 3:
        image, labels = image[len(image) // 2], labels[len(labels) // 2]
    partial = path.with_name(f".{path.name}.part")
    picture = Image.fromarray(draw_outlines(image, labels))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(partial, format="PNG")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ImageError(
            f"{path}: cannot be written ({error.strerror or error}), expected a writable folder "
            "with room: choose another"
        ) from error


def draw_outlines(image: NDArray[np.float32], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(Y, X) and (Y, X) -> (Y, X, 3): outlines lie on the instances' own border pixels."""
    low, high = np.percentile(image, [0.5, 99.8])
    grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1) ** 0.6
    picture = np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=2)
    border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        low_side = [slice(None), slice(None)]
        high_side = [slice(None), slice(None)]
        low_side[axis], high_side[axis] = slice(None, -1), slice(1, None)
        border[tuple(low_side)] |= differ
        border[tuple(high_side)] |= differ
    border &= labels > 0
    picture[border] = _colours(int(labels.max()) + 1)[labels[border]]
    return picture


def _colours(number: int) -> NDArray[np.uint8]:
    """Bright colours, neighbours in number far apart in hue (golden angle)."""
    hue = (np.arange(number) * 0.61803398875) % 1.0
    phases = np.stack([hue, hue - 1 / 3, hue - 2 / 3], axis=1)
    return (255 * (0.6 + 0.4 * np.cos(2 * np.pi * phases))).astype(np.uint8)
