"""Embeddings without noise, made of known instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from zoo_models.postprocessing import Clusterer

Labels = NDArray[Any]
BACKGROUND = (0.0, 0.0, 0.0)
PLACES = np.array([BACKGROUND, (8, 0, 0), (0, 8, 0), (0, 0, 8), (8, 8, 0)], np.float32)
"""Embedding of each category: far more than 2 delta_d apart; category 0 is the background."""


def embed(categories: Labels, places: NDArray[np.float32] = PLACES) -> NDArray[np.float32]:
    """([Z,] Y, X) categories -> (D, [Z,] Y, X) embeddings without noise."""
    return np.moveaxis(places[categories], -1, 0).copy()


def assert_same_partition(found: Labels, expected: Labels) -> None:
    """The same pixels belong together, and the same are background; numbers may differ."""
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found == 0, expected == 0)
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(found)) == len(np.unique(expected))


def scene() -> Labels:
    """Two touching objects (1, 2), and one of the first one's category far away (1)."""
    categories = np.zeros((24, 40), np.int32)
    categories[4:12, 3:10] = 1
    categories[4:12, 10:18] = 2
    categories[14:22, 28:37] = 1
    return categories


def scene_truth() -> Labels:
    truth = scene()
    truth[14:, 28:] *= 3
    return truth


def components(categories: Labels) -> Labels:
    """Connected parts of each category but the background, by scipy, one category at a time."""
    labels = np.zeros(categories.shape, np.int32)
    for category in np.unique(categories[categories > 0]):
        parts, _ = ndimage.label(categories == category)
        labels[parts > 0] = parts[parts > 0] + labels.max()
    return labels


def assert_refuses_bad_input(build: Callable[..., Clusterer]) -> None:
    """What no method can cluster is an error that names what was found, at once."""
    for margin in ("delta_v", "delta_d"):
        for value in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{margin} is {value}, expected"):
                build(**{margin: value})
    embeddings = embed(scene())
    for value in (np.nan, np.inf):
        broken = embeddings.copy()
        broken[:2, 3, 5:12] = value
        with pytest.raises(ValueError, match="7 of 960 pixels have embeddings that are NaN or inf"):
            build()(broken)
    with pytest.raises(ValueError, match=r"mask has shape \(24, 39\), expected \(24, 40\)"):
        build()(embeddings, np.ones((24, 39), bool))
    with pytest.raises(ValueError, match="background has 2 numbers, expected 3"):
        build(background=[0.0, 0.0])(embeddings)


def assert_nothing_gives_nothing(build: Callable[..., Clusterer]) -> None:
    """No pixels, background only, one embedding everywhere, all masked out: zeros."""
    for shape in ((0, 5), (1, 1), (5, 7), (1, 40), (30, 30), (3, 9, 9), (4, 0, 3)):
        nothing = embed(np.zeros(shape, np.int32))
        masked = embed(np.ones(shape, np.int32)), np.zeros(shape, bool)
        for labels in (
            build()(nothing),
            build(background=BACKGROUND)(nothing),
            build(background=BACKGROUND)(*masked),
            build()(*masked),
        ):
            assert labels.shape == shape
            assert labels.dtype == np.int32
            assert not labels.any()


def assert_background_is_known_in_three_ways(build: Callable[..., Clusterer]) -> None:
    """By its embedding, by a mask, or as what is largest; the arguments are left as they were."""
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.05, (3, 24, 40)).astype(np.float32)
    embeddings, foreground = embed(scene()) + noise, scene() > 0
    before = embeddings.copy()
    found = [
        build(background=list(BACKGROUND))(embeddings),
        build()(embeddings, foreground),
        build()(embeddings),
    ]
    for labels in found:
        assert labels.dtype == np.int32
        assert np.unique(labels).tolist() == [0, 1, 2, 3]
        assert_same_partition(labels, scene_truth())
    np.testing.assert_array_equal(found[0], build(background=list(BACKGROUND))(embeddings))
    np.testing.assert_array_equal(embeddings, before)
    np.testing.assert_array_equal(foreground, scene() > 0)
    part = foreground & (np.arange(40) < 15)
    cut = np.where(np.arange(40) < 15, scene_truth(), 0)
    assert_same_partition(build()(embeddings, part), cut)


def assert_drops_what_is_smaller_than_min_size(build: Callable[..., Clusterer]) -> None:
    """A piece of min_size pixels stays, one of fewer goes, and numbers are without gaps."""
    categories = np.zeros((20, 30), np.int32)
    categories[2:6, 2:7] = 1  # 20 pixels
    categories[2:5, 12:19] = 2  # 21 pixels
    categories[10:17, 12:15] = 1  # 21 pixels
    draw = np.random.default_rng(0)
    embeddings = embed(categories) + draw.normal(0, 0.02, (3, 20, 30)).astype(np.float32)
    labels = build(min_size=21, background=BACKGROUND)(embeddings)
    categories[2:6, 2:7] = 0
    assert_same_partition(labels, categories)
    assert labels.max() == 2
