"""Arrays to colours: channels, embeddings and instances of one plane as (Y, X, 3) uint8."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from zoo_models.colours import distinct_colours, inner_borders
from zoo_models.contingency import contingency, overlaps

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]
Rgb = NDArray[np.uint8]

MATCH = 0.5
"""IoU that a prediction must exceed to take the colour of a true instance; as AP@0.5 counts it."""

WRONG = 255
"""Grey value of a prediction without a match."""


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


def matches(instances: Labels, truth: Labels) -> dict[int, int]:
    """Predicted id -> true id of all pairs with IoU > 0.5; labels of any equal shape."""
    table = contingency(instances, truth)
    pairs = overlaps(table)
    good = pairs.iou > MATCH
    predicted = table.predicted_ids[pairs.predicted_index[good]]
    true = table.truth_ids[pairs.truth_index[good]]
    return dict(zip(predicted.tolist(), true.tolist(), strict=True))


class InstancePainter:
    """Colours of the truth, and of predictions by what they match; ids from whole images.

    truth   A A B B     predicted  1 1 2 3     seen  a a w w     w = white: matches nothing
            A A B B                1 1 2 3           a a w w     B's outline, in its colour, is
                                                                 drawn over it: B was missed
    """

    def __init__(self, truth: Labels, instances: Labels) -> None:
        ids = np.unique(truth)
        ids = ids[ids != 0]
        colours = distinct_colours(len(ids))
        self.colour_of = dict(zip(ids.tolist(), colours, strict=True))
        self.partner_of = matches(instances, truth)

    def truth(self, plane: Labels) -> Rgb:
        """True labels (Y, X) -> (Y, X, 3)."""
        return _fill(plane, self.colour_of)

    def instances(self, plane: Labels, truth: Labels) -> Rgb:
        """Predicted and true labels (Y, X) -> (Y, X, 3)."""
        colours = {p: self.colour_of[t] for p, t in self.partner_of.items()}
        picture = _fill(plane, colours)
        found = list(self.partner_of.values())
        missed = inner_borders(truth) & ~np.isin(truth, found)
        picture[missed] = _fill(truth, self.colour_of, rim=1.0)[missed]
        return picture


def _fill(plane: Labels, colours: dict[int, Rgb], *, rim: float = 0.5) -> Rgb:
    """Every label in its colour, white without one, its border darkened to `rim`; 0 is black."""
    ids, index = np.unique(plane, return_inverse=True)
    wrong = np.full(3, WRONG, np.uint8)
    black = np.zeros(3, np.uint8)
    table = np.stack([black if i == 0 else colours.get(i, wrong) for i in ids.tolist()])
    picture = table[index.reshape(plane.shape)]
    border = inner_borders(plane)
    picture[border] = (picture[border] * rim).astype(np.uint8)
    return picture
