"""Random changes of a training patch: geometry for image and labels alike, intensity for images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
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

from training.sections import AugmentationSection

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


class OneView:
    """A change of geometry, then one of intensity; shapes stay as they are."""

    def __init__(self, section: AugmentationSection, *, ndim: int) -> None:
        self.all = Compose([*_geometry(section, ndim), *_intensity(section)])

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image c(z)yx float32 and labels (z)yx int64, after the changes drawn by `seed`."""
        return _apply(self.all, image, labels, seed=seed)


class TwoViews:
    """One change of geometry, then two of intensity: the same pixels, seen twice."""

    def __init__(self, section: AugmentationSection, *, ndim: int) -> None:
        self.geometry = Compose(_geometry(section, ndim))
        self.intensity = Compose(_intensity(section))

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views 2c(z)yx float32 and labels (z)yx int64, for an image c(z)yx and labels (z)yx."""
        warped, ids = _apply(self.geometry, image, labels, seed=seed)
        seeds = np.random.default_rng(seed).integers(2**31, size=2)
        views = []
        for one in seeds:
            self.intensity.set_random_state(seed=int(one))
            with _no_metadata():
                out = self.intensity({"image": warped.clone()})
            assert isinstance(out, dict)
            views.append(torch.as_tensor(out["image"]).float())
        return torch.stack(views), ids


def _geometry(section: AugmentationSection, ndim: int) -> list[Any]:
    steps: list[Any] = []
    if section.flip:
        steps += [RandFlipd(BOTH, prob=0.5, spatial_axis=a) for a in range(ndim)]
    if section.rotate:
        steps.append(RandRotate90d(BOTH, prob=0.75, spatial_axes=(ndim - 2, ndim - 1)))
    return steps + _warps(section, ndim)


def _intensity(section: AugmentationSection) -> list[Any]:
    steps: list[Any] = [RandomGain(section.gain, section.offset)]
    if section.gamma != (1.0, 1.0):
        steps.append(RandAdjustContrastd(["image"], prob=0.3, gamma=section.gamma))
    if section.blur:
        sigma = (0.25, section.blur)
        steps.append(RandGaussianSmoothd(["image"], sigma, sigma, sigma, prob=0.2))
    if section.noise:
        steps.append(RandGaussianNoised(["image"], prob=0.3, std=section.noise))
    return steps


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


def _apply(
    augmentation: Compose, image: np.ndarray, labels: np.ndarray, *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    augmentation.set_random_state(seed=seed)
    with _no_metadata():
        out = augmentation(
            {"image": torch.from_numpy(image), "labels": torch.from_numpy(labels)[None]}
        )
    assert isinstance(out, dict)
    pixels, ids = (torch.as_tensor(out[key]) for key in BOTH)
    return pixels.float(), ids[0].long()


@contextmanager
def _no_metadata() -> Iterator[None]:
    """MONAI's tensors carry metadata, which costs more than the changes themselves."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
