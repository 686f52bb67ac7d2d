"""Colours of instances and the pixels of their borders, for every picture of this project."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
