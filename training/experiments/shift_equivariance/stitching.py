"""Tiles of any width, put side by side as they come: right on the period grid, wrong off it.

`zoo_models.prediction` refuses tiles that leave the grid; the experiments need them. One axis::

    tile 0    |---- read ----|                    each tile begins its own grid at its first kept
    kept      :  |<- w ->|   :                    pixel: pixel p has phase (p mod w) mod P, in one
    tile 1    :      |---- read ----|             pass over the whole it has p mod P. The two are
    kept      :          |<- w ->|                the same for all p exactly when w = n * P
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.experiments.shift_equivariance.counting import answer_to
from training.experiments.shift_equivariance.setups import smallest_read
from zoo_models.geometry import Box, NetworkAxis

Array = NDArray[np.float32]
Read = Callable[[Box], Array]
"""The pixels cyx of a box, which may reach beyond the image."""

SAME = 1e-4
"""Largest difference, in standard deviations of the answer, that float32 explains."""


@dataclass(frozen=True)
class Difference:
    """Of two answers: the largest one in standard deviations, and the share of pixels with any."""

    largest: float
    wrong: float

    @classmethod
    def between(cls, answer: Array, whole: Array) -> Difference:
        """Both Dyx; the deviation is that of `whole`, channel by channel."""
        deviation = np.maximum(whole.std(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
        apart = (np.abs(answer - whole) / deviation).max(axis=0)
        return cls(float(apart.max()), float((apart > SAME).mean()))


def in_tiles(
    network: nn.Module, axis: NetworkAxis, read: Read, shape: Sequence[int], tile: int
) -> Array:
    """Answers Dyx for an image yx of `shape`, from tiles that keep `tile` pixels per side.

    network: valid, loses axis.shrink pixels per side; a tile reads no more than it has to.
    """
    answered = smallest_read(axis, tile) - 2 * axis.shrink
    canvas: Array | None = None
    for start in itertools.product(*(range(0, n, tile) for n in shape)):
        box = Box((0, 0), (answered, answered)).shift(start).grow((axis.shrink,) * 2)
        answer = answer_to(network, read(box))
        if canvas is None:
            canvas = np.full((len(answer), *shape), np.nan, np.float32)
        part = tuple(slice(a, min(a + tile, n)) for a, n in zip(start, shape, strict=True))
        canvas[:, *part] = answer[:, *(slice(0, p.stop - p.start) for p in part)]
    assert canvas is not None
    return canvas


def in_one_pass(network: nn.Module, axis: NetworkAxis, read: Read, shape: Sequence[int]) -> Array:
    """Answers Dyx of one tile that holds the whole image; its grid begins at pixel 0."""
    return in_tiles(network, axis, read, shape, max(shape))


class Phases:
    """The same for many tile widths at once: tiles differ from one pass in their phase alone.

    A tile's answers are those of a pass over the whole image whose grid begins at the tile's first
    pixel modulo P. So at most P passes per axis hold whatever tiles of any width can answer; with
    them put together pixel by pixel, a width costs a copy. Passes are kept when they are first run.
    """

    def __init__(
        self, network: nn.Module, axis: NetworkAxis, read: Read, shape: Sequence[int]
    ) -> None:
        self.network = network
        self.axis = axis
        self.read = read
        self.shape = tuple(shape)
        self.passes: dict[tuple[int, ...], Array] = {}

    def one_pass(self, phase: tuple[int, ...]) -> Array:
        """Answers Dyx of a pass whose grid begins at pixel `phase`, 0 <= phase < P, and before."""
        if phase not in self.passes:
            before = tuple(-p % self.axis.period for p in phase)
            shift = [-b for b in before]
            size = max(n + b for n, b in zip(self.shape, before, strict=True))
            answers = in_one_pass(
                self.network, self.axis, lambda box: self.read(box.shift(shift)), (size, size)
            )
            inside = tuple(slice(b, b + n) for b, n in zip(before, self.shape, strict=True))
            self.passes[phase] = answers[:, *inside]
        return self.passes[phase]

    def in_tiles(self, tile: int) -> Array:
        """What `in_tiles` gives, but for the last bits."""
        rows, columns = (np.arange(n) // tile * tile % self.axis.period for n in self.shape)
        canvas: Array | None = None
        for y, x in itertools.product(np.unique(rows), np.unique(columns)):
            answer = self.one_pass((int(y), int(x)))
            canvas = np.empty_like(answer) if canvas is None else canvas
            place = np.ix_(np.arange(len(answer)), rows == y, columns == x)
            canvas[place] = answer[place]
        assert canvas is not None
        return canvas
