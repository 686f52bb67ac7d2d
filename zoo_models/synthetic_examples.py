"""Example images for the models whose training images are not CC0, and so are not passed on.

    python -m zoo_models.synthetic_examples

writes example/image.tif and example/labels.tif of these models anew, the same bytes every time.
They show what such a model expects; how good it is, its card says, measured on real images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from zoo_models.catalog import ROOT

Labels = NDArray[np.uint16]
Grey = NDArray[np.uint8]


def nuclei_zyx(shape: tuple[int, int, int] = (40, 96, 96), seed: int = 0) -> tuple[Labels, Labels]:
    """Bright ellipsoids in a ball, some touching, blurred along z, on a camera's offset: uint16."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    z, y, x = np.indices(shape)
    middle = np.array(shape) / 2
    number = 0
    while number < 22:
        centre = middle + rng.normal(size=3) * (7, 17, 17)
        radius = np.array([4.5, 7, 7]) * rng.uniform(0.8, 1.15, 3)
        distance = ((z - centre[0]) / radius[0]) ** 2
        distance += ((y - centre[1]) / radius[1]) ** 2 + ((x - centre[2]) / radius[2]) ** 2
        ball = distance < 1
        if ball.sum() > 400 and (labels[ball] > 0).mean() < 0.05:
            number += 1
            labels[ball & (labels == 0)] = number
    brightness = np.concatenate([[0], rng.uniform(150, 300, number)])[labels]
    light = ndimage.gaussian_filter(brightness, (1.5, 1, 1))
    image = 90 + 12 * rng.poisson(light / 14 + 0.6) + rng.normal(0, 3, shape)
    return np.clip(image, 0, 65535).astype(np.uint16), labels


def cells_yx(shape: tuple[int, int] = (512, 512), seed: int = 3) -> tuple[Grey, Labels]:
    """Spread grey cells with arms, a speckled body and a bright rim, like phase contrast: uint8."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    number = 0
    for _ in range(60):
        cell = _spread_cell(shape, rng)
        if number < 16 and cell.sum() > 900 and (labels[cell] > 0).mean() < 0.03:
            number += 1
            labels[cell & (labels == 0)] = number
    inside = labels > 0
    depth = ndimage.distance_transform_edt(inside)
    rim = np.exp(-((ndimage.distance_transform_edt(~inside) / 2.5) ** 2)) * ~inside
    fine, coarse = (
        ndimage.gaussian_filter(rng.normal(size=shape), sigma) * sigma for sigma in (1.2, 4)
    )
    strength = np.clip(ndimage.gaussian_filter(rng.normal(size=shape), 12) * 18 + 0.6, 0.1, 1.5)
    body = inside * (-14 + 16 * np.tanh(depth / 12) + 45 * fine * np.tanh(depth / 8))
    image = 100 + body + 45 * rim * strength + 8 * coarse + 6 * fine
    image += rng.normal(0, 2, shape)
    return np.clip(ndimage.gaussian_filter(image, 0.6), 0, 255).astype(np.uint8), labels


def _spread_cell(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A star-shaped mask: an ellipse whose radius swings with the angle, and two or three arms."""
    y, x = np.indices(shape)
    place = rng.uniform(0, 1, 2) * shape
    angle, distance = np.arctan2(y - place[0], x - place[1]), np.hypot(y - place[0], x - place[1])
    turn = rng.uniform(0, 2 * np.pi)
    radius = 24 * rng.uniform(0.8, 1.3) * (1 + 0.45 * np.cos(2 * (angle - turn)))
    for order in (3, 5, 7):
        radius *= 1 + 0.3 / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    for arm in turn + rng.normal(0, 0.4, 3) + np.array([0, np.pi, np.pi / 2]):
        off = np.angle(np.exp(1j * (angle - arm)))
        radius = radius + rng.uniform(15, 45) * np.exp(-((off / 0.16) ** 2))
    star: NDArray[np.bool_] = distance < radius
    return star


def write(model: str, image: NDArray[np.generic], labels: Labels, *, root: Path = ROOT) -> None:
    """Compressed TIFF, as the other examples."""
    folder = root / model / "example"
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in (("image", image), ("labels", labels)):
        tifffile.imwrite(folder / f"{name}.tif", pixels, compression="deflate", predictor=True)


if __name__ == "__main__":
    write("nuclei-embryo-3d", *nuclei_zyx())
    write("cells-phase-2d", *cells_yx())
