"""Colours of predictions that say which true instance they match, one plane as (Y, X, 3) uint8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo_models.colours import distinct_colours, inner_borders
from zoo_models.contingency import contingency, overlaps

Labels = NDArray[np.integer]
Rgb = NDArray[np.uint8]

MATCH = 0.5
"""IoU that a prediction must exceed to take the colour of a true instance; as AP@0.5 counts it."""

WRONG = 255
"""Grey value of a prediction without a match."""


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
