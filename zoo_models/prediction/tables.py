"""What the tables of blocks have in common: rows that touch within the block, and at its shell.

A pixel of a block's shell (its outermost layer) may have direct neighbours beyond the block::

    +---------+---------+
    |       a | b       |      a lies in the shell of the left block, and b beyond it
    +---------+---------+
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import Integers, Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """Rows for one block, of n columns each; pixels are flat indices into the whole image.

    Attributes:
        size: (n,) pixels of each row.
        first, second: (m,) rows that touch in the block.
        contact: (m,) how many of their pixels are direct neighbours there.
        shell: (s,) the shell's pixels that belong to a row, ascending.
        shell_row: (s,) the row of each.
    """

    size: Integers
    first: Integers
    second: Integers
    contact: Integers
    shell: Integers
    shell_row: Integers

    def __len__(self) -> int:
        return len(self.size)

    def only(self, rows: Mask) -> Self:
        """The table of the given rows (n,), numbered anew; what touches others loses these."""
        row = np.cumsum(rows) - 1
        pair = rows[self.first] & rows[self.second]
        on_shell = rows[self.shell_row]
        other = {
            "first": row[self.first[pair]],
            "second": row[self.second[pair]],
            "contact": self.contact[pair],
            "shell": self.shell[on_shell],
            "shell_row": row[self.shell_row[on_shell]],
        }
        kept = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in other}
        return type(self)(**kept, **other)

    def ways_out(self, block: Box, shape: tuple[int, ...]) -> tuple[Integers, Integers]:
        """Rows, and pixels beyond the block to which they lead: direct neighbours of the shell."""
        at, pixel = beyond(self.shell, block, shape)
        return self.shell_row[at], pixel

    def belongs(self, rows: Integers, other: Self, other_rows: Integers) -> Mask:
        """Which of these rows must be looked at together with rows of another block they touch."""
        return np.ones(len(rows), bool)


def shell_of(box: Box, shape: tuple[int, ...]) -> Integers:
    """Flat indices, ascending, of the outermost pixels of a box in an image of `shape`."""
    inner = np.zeros(box.shape, bool)
    inner[(slice(1, -1),) * len(shape)] = True
    place = np.stack(np.nonzero(~inner)) + np.array(box.start)[:, None]
    pixels: Integers = np.ravel_multi_index(tuple(place), shape)
    return pixels


def beyond(shell: Integers, block: Box, shape: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Direct neighbours of shell pixels, beyond the block but in the image.

    Index into `shell`, and neighbour; a pixel at a corner of the block has several.
    """
    at, pixels = [], []
    stride = 1
    for axis in reversed(range(len(shape))):
        place = shell // stride % shape[axis]
        for edge, step in ((block.start[axis], -1), (block.stop[axis] - 1, 1)):
            if 0 <= edge + step < shape[axis]:
                found = np.flatnonzero(place == edge)
                at.append(found)
                pixels.append(shell[found] + step * stride)
        stride *= shape[axis]
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *at]), np.concatenate([none, *pixels])


def looked_up(keys: Integers, values: Integers, wanted: Integers) -> Integers:
    """The value of each wanted key, -1 of an unknown one; keys ascend."""
    if len(keys) == 0:
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], -1)
