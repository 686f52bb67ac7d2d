"""Embeddings without noise, made of known instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
