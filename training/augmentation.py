"""Random changes of a training patch: geometry for image and labels alike, intensity for images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    MapTransform,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandRotate90d,
)

from training.config import AugmentationSection

BOTH = ["image", "labels"]
MODES = ["bilinear", "nearest"]


class RandomGain(MapTransform, Randomizable):
    """image * g + o: g log-uniform in a range, o uniform in +-offset (MONAI has no log-uniform)."""

    def __init__(self, gain: tuple[float, float], offset: float) -> None:
        MapTransform.__init__(self, ["image"])
        self.gain, self.offset = gain, offset

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        low, high = (math.log(g) for g in self.gain)
        gain = math.exp(self.R.uniform(low, high))
        offset = self.R.uniform(-self.offset, self.offset)
        return {**data, "image": data["image"] * gain + offset}


def build_augmentation(section: AugmentationSection, *, ndim: int) -> Compose:
    """A transform of {"image": c(z)yx float32, "labels": 1(z)yx float32}, both kept in shape."""
    steps: list[Any] = []
    if section.flip:
        steps += [RandFlipd(BOTH, prob=0.5, spatial_axis=a) for a in range(ndim)]
    if section.rotate:
        steps.append(RandRotate90d(BOTH, prob=0.75, spatial_axes=(ndim - 2, ndim - 1)))
    steps += _warps(section, ndim)
    steps.append(RandomGain(section.gain, section.offset))
    if section.gamma != (1.0, 1.0):
        steps.append(RandAdjustContrastd(["image"], prob=0.3, gamma=section.gamma))
    if section.blur:
        sigma = (0.25, section.blur)
        steps.append(RandGaussianSmoothd(["image"], sigma, sigma, sigma, prob=0.2))
    if section.noise:
        steps.append(RandGaussianNoised(["image"], prob=0.3, std=section.noise))
    return Compose(steps)


def _warps(section: AugmentationSection, ndim: int) -> list[Any]:
    in_plane = math.pi if section.rotate else 0.0
    shared: dict[str, Any] = {
        "rotate_range": in_plane if ndim == 2 else (in_plane, 0.0, 0.0),
        "scale_range": [(-section.scale, section.scale)] * ndim,
        "mode": MODES,
        "padding_mode": "reflection",
    }
    warps: list[Any] = []
    if section.affine:
        warps.append(RandAffined(BOTH, prob=section.affine, **shared))
    if section.elastic:
        shared = {**shared, "rotate_range": None, "scale_range": None, "prob": section.elastic}
        if ndim == 2:
            elastic: Any = Rand2DElasticd(BOTH, spacing=(40, 40), magnitude_range=(1, 5), **shared)
        else:
            elastic = Rand3DElasticd(BOTH, sigma_range=(5, 8), magnitude_range=(50, 150), **shared)
        warps.append(elastic)
    return warps


def apply(
    augmentation: Compose, image: np.ndarray, labels: np.ndarray, *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image c(z)yx and labels (z)yx after the augmentation drawn by `seed`: float32 and int64."""
    augmentation.set_random_state(seed=seed)
    out = augmentation({"image": torch.from_numpy(image), "labels": torch.from_numpy(labels)[None]})
    assert isinstance(out, dict)
    pixels, ids = (torch.as_tensor(out[key]).detach() for key in BOTH)
    return _plain(pixels).float(), _plain(ids)[0].long()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without MONAI's metadata, which costs time at every operation after it."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
