"""A picture to look at: the image in grey with each instance outlined in its own colour."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo_models.colours import distinct_colours, inner_borders
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
    border = inner_borders(labels)
    picture[border] = distinct_colours(int(labels.max()) + 1)[labels[border]]
    return picture
