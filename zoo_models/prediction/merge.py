"""Which fragments and parts of different blocks belong together: tables in, tables out.

Fragments are named by the pixel at which their walks end, parts by their first pixel, and sums are
exact (below 2 ** 53 units in the last place of a distance), so neither the blocks' size nor their
order shows in the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging, Floats, Integers, Labels
from zoo_models.prediction.fragments import Fragments, flat_within, shell_of


@dataclass(frozen=True, eq=False)
class Groups:
    """Of each fragment of a block, from row 1 on: its group, and below which distance it is rim."""

    group: Labels
    limit: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parts:
    """The table of p parts in one block; pixels are flat indices into the whole image.

    Attributes:
        category: (p,) twice the group, and 1 more for rim.
        size: (p,) pixels.
        start: (p,) first pixel.
        first, second: (m,) rows of parts that touch in the block.
        shell, shell_part: (s,) the shell's pixels, ascending, and the row of each.
    """

    category: Labels
    size: Integers
    start: Integers
    first: Integers
    second: Integers
    shell: Integers
    shell_part: Integers


def merge_fragments(
    clusterer: BasinMerging, tables: Sequence[Fragments], shape: tuple[int, ...]
) -> list[Groups]:
    """Which fragments of all blocks are one group; one entry for each table.

    A walk that ends in another block's shell goes on there. What ends at one minimum is a basin;
    basins are merged as those of a whole image are: in the order of their minima.
    """
    offset = _offsets(len(t.end) for t in tables)
    end = _joined([t.end for t in tables])
    size = _joined([t.size for t in tables])
    shell = _joined([t.shell for t in tables])
    shell_row = _joined([t.shell_fragment + o for t, o in zip(tables, offset, strict=False)])
    order = np.argsort(shell)
    shell, shell_row = shell[order], shell_row[order]
    own = _joined([t.own for t in tables])
    root = _followed(end, shell, end[shell_row])
    minima, basin = np.unique(root, return_inverse=True)
    bottom = np.zeros((len(minima) + 1, tables[0].bottom.shape[1]), np.float32)
    every = np.concatenate([t.bottom for t in tables])
    for known in (end == root, own):  # those of other blocks serve where a cycle was cut only
        bottom[1 + basin[known]] = every[known]
    pixels = np.bincount(basin + 1, weights=size, minlength=len(minima) + 1).astype(np.int64)
    inner = [(t.first + o, t.second + o) for t, o in zip(tables, offset, strict=False)]
    first, second = _all_pairs(inner, shell, shell_row, shape)
    pairs = _ordered(basin[first] + 1, basin[second] + 1, len(bottom))
    group = clusterer.groups(bottom, pixels, pairs, clusterer.merge)
    of_fragment = group[basin + 1]
    distance = _joined([t.distance for t in tables])
    settled = _joined([t.settled for t in tables])
    total = np.bincount(of_fragment, weights=distance, minlength=int(group.max()) + 1)
    count = np.bincount(of_fragment, weights=settled, minlength=len(total))
    limit = clusterer.solid * (total / np.maximum(count, 1))
    return [
        Groups(
            np.concatenate([[0], of_fragment[a:b]]).astype(np.int32),
            np.concatenate([[0.0], limit[of_fragment[a:b]]]),
        )
        for a, b in pairwise(offset)
    ]


def parts(
    clusterer: BasinMerging,
    groups: Groups,
    fragment: Labels,
    distance: Floats,
    block: Box,
    shape: tuple[int, ...],
) -> tuple[Parts, Labels]:
    """The block's table of parts, and of each pixel its row."""
    rim = distance < groups.limit[fragment]
    part, category, size = clusterer.regions(2 * groups.group[fragment] + rim)
    first, second = clusterer.touching(part + 1)
    start = np.empty(len(size), np.int64)
    start[part.ravel()[::-1]] = np.arange(part.size)[::-1]  # the last that is written stays
    place = np.stack(np.unravel_index(start, block.shape)) + np.array(block.start)[:, None]
    shell = shell_of(block, shape)
    table = Parts(
        category=category,
        size=size,
        start=np.ravel_multi_index(tuple(place), shape),
        first=first - 1,
        second=second - 1,
        shell=shell,
        shell_part=part.ravel()[flat_within(shell, shape, block)].astype(np.int64),
    )
    return table, part


def merge_parts(
    clusterer: BasinMerging, tables: Sequence[Parts], shape: tuple[int, ...]
) -> tuple[list[Labels], Integers]:
    """Instances 1..n in the order of their first pixels, and these pixels (n,).

    The instance of each part, 0 for none; one entry for each table.
    """
    offset = _offsets(len(t.size) for t in tables)
    category = _joined([t.category for t in tables])
    start = _joined([t.start for t in tables])
    shell = _joined([t.shell for t in tables])
    shell_row = _joined([t.shell_part + o for t, o in zip(tables, offset, strict=False)])
    order = np.argsort(shell)
    inner = [(t.first + o, t.second + o) for t, o in zip(tables, offset, strict=False)]
    first, second = _all_pairs(inner, shell[order], shell_row[order], shape)
    same = category[first] == category[second]
    by_start = np.argsort(start)  # so that merged parts are in the order of their first pixels
    rank = np.empty(len(start), np.int64)
    rank[by_start] = np.arange(len(start))
    merged = clusterer.components(len(start), rank[first[same]], rank[second[same]])[rank]
    number = int(merged.max(initial=-1)) + 1
    of_merged = np.zeros(number, np.int32)
    of_merged[merged] = category
    size = np.bincount(merged, weights=_joined([t.size for t in tables]), minlength=number)
    pairs = _ordered(merged[first], merged[second], number)
    label = clusterer.pieces(of_merged, size.astype(np.int64), pairs)[merged]
    instance, at = np.unique(label[by_start], return_index=True)
    return [label[a:b] for a, b in pairwise(offset)], start[by_start][at[instance > 0]]


def _all_pairs(
    inner: Iterable[tuple[Integers, Integers]],
    shell: Integers,
    row: Integers,
    shape: tuple[int, ...],
) -> tuple[Integers, Integers]:
    """Pairs of rows that touch: those within blocks, and those of neighbouring shell pixels."""
    first, second = (list(side) for side in zip(*inner, strict=True))
    stride = 1
    for axis in reversed(range(len(shape))):
        inside = shell // stride % shape[axis] + 1 < shape[axis]
        here, there = row[inside], _looked_up(shell, row, shell[inside] + stride, missing=-1)
        met = (there >= 0) & (there != here)
        first.append(here[met])
        second.append(there[met])
        stride *= shape[axis]
    return _joined(first), _joined(second)


def _followed(end: Integers, shell: Integers, shell_end: Integers) -> Integers:
    """Where walks lead that end at `end`, and go on from each shell pixel to its own end.

    Where the embeddings of a pixel differed in their last bits between two reads, walks of two
    blocks may lead into each other for ever: such a cycle ends at its first pixel.
    """
    nodes = np.unique(np.concatenate([end, shell]))
    following = np.arange(len(nodes))
    following[np.searchsorted(nodes, shell)] = np.searchsorted(nodes, shell_end)
    ends_here = following == np.arange(len(nodes))
    first = np.arange(len(nodes))  # of the nodes passed so far
    for _ in range(len(nodes).bit_length()):  # twice as far each time
        if ends_here[following].all():
            break
        first = np.minimum(first, first[following])
        following = following[following]
    in_cycle = ~ends_here[following]
    following[in_cycle] = first[following[in_cycle]]
    reached: Integers = nodes[following[np.searchsorted(nodes, end)]]
    return reached


def _looked_up(
    keys: Integers, values: Integers, wanted: Integers, missing: int | None = None
) -> Integers:
    """The value of each wanted key; of an unknown one `missing`, or the key itself."""
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    otherwise = wanted if missing is None else np.full_like(wanted, missing)
    if len(keys) == 0:
        return otherwise
    return np.where(keys[place] == wanted, values[place], otherwise)


def _ordered(first: Integers, second: Integers, number: int) -> tuple[Integers, Integers]:
    """Each pair a < b once, in order."""
    apart = first != second
    first, second = first[apart], second[apart]
    key = np.unique(np.minimum(first, second) * number + np.maximum(first, second))
    return key // number, key % number


def _offsets(lengths: Iterable[int]) -> Integers:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays)
