"""Tables of all blocks in portions, so that never all of them are in memory.

What touches is decided together, and what does not touch is decided apart::

    +---------+---------+---------+
    |  a    b | b     c | c       |      rows a, b, c, d of six blocks, the same letter where they
    |       b | b       |         |      touch: with at most two letters at once, (a b), then (c d)
    +---------+---------+---------+
    |         |      d  |         |
    +---------+---------+---------+

Where cells lie apart, a portion spans a few blocks, and the borders of a few rows of blocks are
remembered while touching rows are found. Where all touch, the only portion is everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging, Integers, Mask
from zoo_models.prediction.tables import Table, looked_up

T = TypeVar("T", bound=Table)


@dataclass(frozen=True, eq=False)
class Share(Generic[T]):
    """What a portion takes of one block: the table of these rows (n,) of its own."""

    block: Box
    rows: Mask
    table: T


@dataclass(frozen=True, eq=False)
class _Border(Generic[T]):
    """What later blocks must know of an earlier one: its table, the node of each row, ways out."""

    table: T
    node: Integers
    rows: Integers
    pixels: Integers


def portions(
    clusterer: BasinMerging,
    blocks: Sequence[Box],
    read: Callable[[Box], T],
    shape: tuple[int, ...],
    *,
    most: int,
) -> Iterator[list[Share[T]]]:
    """Every row of all tables once, together with all that it touches, over any number of blocks.

    blocks: cells of a grid, of which others may be missing. read: the table of a block, which may
    be asked for several times. most: rows in a portion, unless more touch each other.
    """
    begin, rows, component = _components(clusterer, blocks, read, shape)
    by_component = np.argsort(component, kind="stable")
    for nodes in _cut(by_component, component, rows, most):
        share = []
        for n in np.unique(np.searchsorted(begin, nodes, side="right") - 1).tolist():
            table = read(blocks[n])
            chosen = np.isin(_nodes(clusterer, table) + begin[n], nodes)
            share.append(Share(blocks[n], chosen, table.only(chosen)))
        yield share


def _components(
    clusterer: BasinMerging,
    blocks: Sequence[Box],
    read: Callable[[Box], T],
    shape: tuple[int, ...],
) -> tuple[Integers, Integers, Integers]:
    """Nodes are rows that touch within a block: first of each block; rows and component of each."""
    begin, rows = [0], [np.zeros(0, np.int64)]
    near = neighbours(blocks) if blocks else np.zeros((0, 1), np.int64)
    last = near.max(axis=1, initial=-1)
    pairs = [np.zeros((2, 0), np.int64)]
    borders: dict[int, _Border[T]] = {}
    for n, block in enumerate(blocks):
        table = read(block)
        node = _nodes(clusterer, table)
        rows.append(np.bincount(node))
        here = _Border(table, node + begin[n], *table.ways_out(block, shape))
        begin.append(begin[n] + len(rows[-1]))
        for other in (borders[m] for m in near[n].tolist() if 0 <= m < n):
            found = [_links(here, other), _links(other, here)]
            pairs += [links for links in found if links.size]
        borders[n] = here
        for m in [m for m in borders if last[m] <= n]:
            del borders[m]
    first, second = np.concatenate(pairs, axis=1)
    component = clusterer.components(begin[-1], first, second)
    return np.array(begin), np.concatenate(rows), component


def _nodes(clusterer: BasinMerging, table: Table) -> Integers:
    return clusterer.components(len(table), table.first, table.second)


def _links(one: _Border[T], other: _Border[T]) -> Integers:
    """Nodes (2, m) of one block and of another to which it leads, each pair once."""
    row = looked_up(other.table.shell, other.table.shell_row, one.pixels)
    met = row >= 0
    met[met] = one.table.belongs(one.rows[met], other.table, row[met])
    return np.unique(np.stack([one.node[one.rows[met]], other.node[row[met]]]), axis=1)


def _cut(
    by_component: Integers, component: Integers, rows: Integers, most: int
) -> Iterator[Integers]:
    """Nodes in portions of whole components, ascending."""
    if len(by_component) == 0:
        return
    whole = np.bincount(component, weights=rows).astype(np.int64)
    stop = np.cumsum(np.bincount(component))
    taken, start = 0, 0
    for c, number in enumerate(whole.tolist()):
        if taken and taken + number > most:
            yield np.sort(by_component[start : stop[c - 1]])
            taken, start = 0, int(stop[c - 1])
        taken += number
    yield np.sort(by_component[start:])


def neighbours(blocks: Sequence[Box]) -> Integers:
    """The numbers (blocks, 3 ** ndim - 1) of the blocks that touch each, corners too; -1: none.

    Of cells of a grid; where a whole line of cells is missing, those on its two sides count, too.
    """
    start = np.array([block.start for block in blocks])
    axes = [np.unique(along) for along in start.T]
    grid = tuple(map(len, axes))
    cell = np.stack([np.searchsorted(a, s) for a, s in zip(axes, start.T, strict=True)])
    number = np.full([n + 2 for n in grid], -1)  # with a rim of none
    number[tuple(cell + 1)] = np.arange(len(blocks))
    steps = [s for s in itertools.product((0, 1, 2), repeat=len(grid)) if set(s) != {1}]
    return np.stack([number[tuple(cell + np.array(s)[:, None])] for s in steps], axis=1)
