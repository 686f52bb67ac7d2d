"""Two views of a patch show the same pixels in different light, and only when they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from training.augmentation import OneView, TwoViews
from training.config import TrainingConfig, load_config
from training.datasets import Sample
from training.patches import Patches
from training.sections import AugmentationSection

STILL = AugmentationSection(gain=(1.0, 1.0), offset=0, gamma=(1.0, 1.0), noise=0, blur=0)
UNMOVED = {"flip": False, "rotate": False, "affine": 0.0, "elastic": 0.0}
SPARSE = "[supervision]\nfraction = 1.0\n"


def coded(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An image whose value is its label, in blocks."""
    labels = np.zeros(shape, np.float32)
    labels[..., : shape[-1] // 2] = 1
    labels[..., shape[-2] // 3 :, :] += 2
    return labels[None].copy(), labels


def with_more(config_file: Path, text: str) -> TrainingConfig:
    config_file.write_text(config_file.read_text() + text)
    return load_config(config_file)


def test_both_views_have_the_geometry_of_the_labels() -> None:
    for shape in ((40, 50), (6, 40, 50)):
        image, labels = coded(shape)
        section = STILL.model_copy(update={"affine": 0.0, "elastic": 0.0})
        augment = TwoViews(section, ndim=len(shape))
        flipped = 0
        for seed in range(5):
            views, ids = augment(image, labels, seed=seed)
            assert views.shape == (2, 1, *ids.shape)
            assert torch.equal(views[0, 0], ids.float())
            assert torch.equal(views[1, 0], ids.float())
            flipped += not np.array_equal(ids.numpy(), labels)
        assert flipped


def test_views_are_warped_alike() -> None:
    image, labels = coded((60, 60))
    for seed in range(5):
        views, ids = TwoViews(STILL, ndim=2)(image, labels, seed=seed)
        assert torch.equal(views[0], views[1])
        assert (views[0, 0] - ids).abs().mean() < 0.1  # bilinear and nearest


def test_views_differ_in_gain_offset_noise_and_blur() -> None:
    image = np.random.default_rng(0).random((1, 30, 30)).astype(np.float32)
    for change in ({"gain": (0.5, 2.0)}, {"offset": 0.1}, {"noise": 0.1}, {"blur": 2.0}):
        section = STILL.model_copy(update={**UNMOVED, **change})
        augment, different = TwoViews(section, ndim=2), 0
        for seed in range(20):
            first, second = augment(image, image[0], seed=seed)[0]
            different += not torch.equal(first, second)
        assert different >= 3, change
        again = TwoViews(section, ndim=2)(image, image[0], seed=7)[0]
        assert torch.equal(again, augment(image, image[0], seed=7)[0])


def test_the_first_view_is_as_varied_as_a_view_without_a_teacher() -> None:
    image = np.ones((1, 8, 8), np.float32)
    section = STILL.model_copy(update={**UNMOVED, "gain": (0.5, 2.0)})
    one, two = OneView(section, ndim=2), TwoViews(section, ndim=2)
    single = [float(one(image, image[0], seed=s)[0].mean()) for s in range(200)]
    levels = [0.1, 0.5, 0.9]
    for view in range(2):
        double = [float(two(image, image[0], seed=s)[0][view].mean()) for s in range(200)]
        expected = np.quantile(single, levels)
        np.testing.assert_allclose(np.quantile(double, levels), expected, rtol=0.2)


def test_patches_have_two_views_with_a_teacher_only(config_file: Path) -> None:
    image, labels = coded((60, 60))
    sample = Sample("s", image, labels.astype(np.int32))
    assert Patches([sample], load_config(config_file))[0][0].shape == (1, 44, 44)
    config = with_more(config_file, SPARSE)
    patches = Patches([sample], config)
    assert patches[3][0].shape == (2, 1, 44, 44)
    assert torch.equal(patches[3][0], patches[3][0])
    off = config.loss.model_copy(update={"consistency": 0.0})
    config = config.model_copy(update={"loss": off})
    assert Patches([sample], config)[0][0].shape == (1, 44, 44)


def test_an_instance_never_becomes_unlabeled_where_a_patch_has_no_0(config_file: Path) -> None:
    labels = np.full((60, 60), 8, np.int32)
    labels[:, 30:] = 9
    sample = Sample("s", labels[None].astype(np.float32), labels)
    patches = Patches([sample], with_more(config_file, SPARSE))
    assert all((patches[i][1] > 0).all() for i in range(5))
