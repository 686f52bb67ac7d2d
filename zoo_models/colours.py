"""Arrays to colours, for every picture of this project: one plane as (Y, X, 3) uint8."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Rgb = NDArray[np.uint8]


def distinct_colours(number: int) -> NDArray[np.uint8]:
    """(number, 3) bright RGB colours, neighbours in number far apart in hue (golden angle)."""
    hue = (np.arange(number) * 0.61803398875) % 1.0
    phases = np.stack([hue, hue - 1 / 3, hue - 2 / 3], axis=1)
    return (255 * (0.6 + 0.4 * np.cos(2 * np.pi * phases))).astype(np.uint8)


def inner_borders(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Labels (Y, X) -> where an instance's own pixel touches, along y or x, one of another label.

    labels  1 1 1 0      borders  . . # .
            1 1 1 2               . . # #
            1 1 1 2               . . # #
    """
    border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        low_side = [slice(None), slice(None)]
        high_side = [slice(None), slice(None)]
        low_side[axis], high_side[axis] = slice(None, -1), slice(1, None)
        border[tuple(low_side)] |= differ
        border[tuple(high_side)] |= differ
    return border & (labels > 0)


def label_colours(labels: NDArray[np.integer]) -> Rgb:
    """Labels (Y, X) -> one colour per instance, background black."""
    ids, index = np.unique(labels, return_inverse=True)
    colours = np.where(ids[:, None] == 0, 0, distinct_colours(int(ids.max(initial=0)) + 1)[ids])
    return np.asarray(colours[index.reshape(labels.shape)], np.uint8)


def stretch(plane: Floats) -> Rgb:
    """(Y, X) of any unit -> 0..255 between the 0.5th and the 99.8th percentile; a flat plane: 0."""
    low, high = np.percentile(plane, (0.5, 99.8))
    if high <= low:
        return np.zeros(plane.shape, np.uint8)
    return np.asarray(np.clip((plane - low) * (255 / (high - low)), 0, 255), np.uint8)


def channel_colours(image: Floats) -> Rgb:
    """(C, Y, X) -> one channel in grey; of more the first three as red, green, blue."""
    if len(image) == 1:
        return np.repeat(stretch(image[0])[..., None], 3, axis=-1)
    picture = np.zeros((*image.shape[1:], 3), np.uint8)
    for colour, plane in enumerate(image[:3]):
        picture[..., colour] = stretch(plane)
    return picture


def principal_directions(embeddings: Floats, previous: Floats | None = None) -> Floats:
    """The directions of largest variance of embeddings (D, Y, X) as columns (D, min(D, 3)).

    PCA leaves every sign free, and the order when two variances are close. Without `previous` the
    order is by variance and the largest entry of a direction is positive. With `previous`, the
    directions of the epoch before, they are put in that order and given those signs in which they
    agree best with it (largest sum of |cosine|): a colour keeps its meaning as long as the
    embedding space itself does.
    """
    pixels = embeddings.reshape(len(embeddings), -1).astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(pixels @ pixels.T / pixels.shape[1])
    main = vectors[:, ::-1][:, :3]
    number = main.shape[1]
    if previous is None:
        largest = main[np.abs(main).argmax(axis=0), np.arange(number)]
        return np.asarray(main * np.sign(largest))
    cosine = previous.T @ main
    rows = np.arange(number)
    order = max(
        (list(p) for p in permutations(range(number))), key=lambda p: np.abs(cosine[rows, p]).sum()
    )
    return np.asarray(main[:, order] * np.where(cosine[rows, order] < 0, -1.0, 1.0))


def embedding_colours(embeddings: Floats, directions: Floats) -> Rgb:
    """Embeddings (D, Y, X) along (D, K) directions -> red, green, blue; a missing one is half."""
    picture = np.full((*embeddings.shape[1:], 3), 128, np.uint8)
    for colour, direction in enumerate(directions.T):
        picture[..., colour] = stretch(np.tensordot(direction, embeddings, axes=1))
    return picture
