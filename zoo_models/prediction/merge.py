"""Which fragments and parts of different blocks belong together: tables in, tables out.

Fragments are named by the pixel at which their walks end, parts by their first pixel, and sums are
exact (below 2 ** 53 units in the last place of a distance), so neither the blocks' size nor their
order shows in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import (
    BasinMerging,
    Floats,
    Integers,
    Labels,
    Mask,
    summed,
)
from zoo_models.prediction.fragments import Fragments, flat_within
from zoo_models.prediction.tables import Table, beyond, looked_up, shell_of


@dataclass(frozen=True, eq=False)
class Groups:
    """Of each fragment of a block, from row 1 on: its group, and below which distance it is rim."""

    group: Labels
    limit: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts(Table):
    """The table of n parts of groups in one block; rows that touch are of the same group.

    Attributes:
        category: (n,) twice the group, and 1 more for rim.
        start: (n,) first pixel.
        exposed: (n,) bool, touches what is not its group.
    """

    category: Labels
    start: Integers
    exposed: Mask

    def belongs(self, rows: Integers, other: Parts, other_rows: Integers) -> Mask:
        """Of another group is all that need be known of what is not the same group."""
        same: Mask = self.category[rows] // 2 == other.category[other_rows] // 2
        return same


def merge_fragments(
    clusterer: BasinMerging, of_block: Mapping[Box, Fragments], shape: tuple[int, ...]
) -> list[Groups]:
    """Which fragments of some blocks are one group; one entry for each block.

    A walk that ends in another block's shell goes on there. What ends at one minimum is a basin;
    basins are merged as those of a whole image are: in the order of their minima.
    """
    tables = list(of_block.values())
    offset = _offsets(tables)
    end = _joined([t.end for t in tables])
    size = _joined([t.size for t in tables])
    shell, shell_row = shells = _shells(tables, offset)
    own = _joined([t.own for t in tables])
    root = _followed(end, shell, end[shell_row])
    minima, basin = np.unique(root, return_inverse=True)
    bottom = np.zeros((len(minima) + 1, tables[0].bottom.shape[1]), np.float32)
    every = np.concatenate([t.bottom for t in tables])
    for known in (end == root, own):  # those of other blocks serve where a cycle was cut only
        bottom[1 + basin[known]] = every[known]
    pixels = np.bincount(basin + 1, weights=size, minlength=len(minima) + 1).astype(np.int64)
    first, second, contact, _ = _all_pairs(of_block, offset, shells, shape)
    pairs = summed(basin[first] + 1, basin[second] + 1, contact, len(bottom))
    group = clusterer.groups(bottom, pixels, pairs, clusterer.merge, len(shape))
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
    """The block's table of parts, and of each pixel the part, a row from 1 on or 0."""
    rim = distance < groups.limit[fragment]
    region, category, size = clusterer.regions(2 * groups.group[fragment] + rim)
    kept = category >= 2
    row = np.cumsum(kept) - 1
    first, second, contact = clusterer.touching(region + 1)
    first, second = first - 1, second - 1
    same = category[first] // 2 == category[second] // 2
    exposed = np.zeros(len(size), bool)
    exposed[first[~same]] = exposed[second[~same]] = True
    inside = same & kept[first]
    start = np.empty(len(size), np.int64)
    start[region.ravel()[::-1]] = np.arange(region.size)[::-1]  # the last that is written stays
    place = np.stack(np.unravel_index(start[kept], block.shape)) + np.array(block.start)[:, None]
    part = clusterer.painted(region, np.where(kept, row + 1, 0).astype(np.int32))
    shell = shell_of(block, shape)
    on_shell = part.ravel()[flat_within(shell, shape, block)].astype(np.int64)
    table = Parts(
        category=category[kept],
        size=size[kept],
        start=np.ravel_multi_index(tuple(place), shape),
        exposed=exposed[kept],
        first=row[first[inside]],
        second=row[second[inside]],
        contact=contact[inside],
        shell=shell[on_shell > 0],
        shell_row=on_shell[on_shell > 0] - 1,
    )
    return table, part


def merge_parts(
    clusterer: BasinMerging, of_block: Mapping[Box, Parts], shape: tuple[int, ...]
) -> tuple[list[Labels], Integers]:
    """Instances 1..n in the order of their first pixels, and these pixels (n,).

    The instance of each part, 0 for none; one entry for each block. All else that a part touches
    is stood for by one part more, of no group.
    """
    tables = list(of_block.values())
    offset = _offsets(tables)
    category = _joined([t.category for t in tables])
    start = _joined([t.start for t in tables])
    first, second, _, alone = _all_pairs(of_block, offset, _shells(tables, offset), shape)
    exposed = _joined([t.exposed for t in tables])
    same = category[first] // 2 == category[second] // 2
    exposed[alone] = exposed[first[~same]] = exposed[second[~same]] = True
    first, second = first[same], second[same]
    alike = category[first] == category[second]
    by_start = np.argsort(start)  # so that merged parts are in the order of their first pixels
    rank = np.empty(len(start), np.int64)
    rank[by_start] = np.arange(len(start))
    merged = clusterer.components(len(start), rank[first[alike]], rank[second[alike]])[rank]
    number = int(merged.max(initial=-1)) + 1
    of_merged = np.zeros(number + 1, np.int32)
    of_merged[merged] = category
    size = np.bincount(
        merged, weights=_joined([t.size for t in tables]), minlength=number + 1
    ).astype(np.int64)
    outside = merged[exposed]
    one = np.concatenate([merged[first], outside])
    other = np.concatenate([merged[second], np.full(len(outside), number)])
    first, second, _ = summed(one, other, np.ones_like(one), number + 1)
    label = clusterer.pieces(of_merged, size, (first, second))[merged]
    instance, at = np.unique(label[by_start], return_index=True)
    return [label[a:b] for a, b in pairwise(offset)], start[by_start][at[instance > 0]]


def _shells(tables: Sequence[Table], offset: Integers) -> tuple[Integers, Integers]:
    """The shells' pixels of all tables, ascending, and the row of each."""
    shell = _joined([t.shell for t in tables])
    row = _joined([t.shell_row + o for t, o in zip(tables, offset, strict=False)])
    order = np.argsort(shell)
    return shell[order], row[order]


def _all_pairs(
    of_block: Mapping[Box, Table],
    offset: Integers,
    shells: tuple[Integers, Integers],
    shape: tuple[int, ...],
) -> tuple[Integers, Integers, Integers, Integers]:
    """Pairs of rows that touch, in a block or across a border, and their contact; rows that touch
    what has no row.
    """
    tables = list(of_block.values())
    first = [t.first + o for t, o in zip(tables, offset, strict=False)]
    second = [t.second + o for t, o in zip(tables, offset, strict=False)]
    contact = [t.contact for t in tables]
    alone = []
    for block, table, begin in zip(of_block, tables, offset, strict=False):
        at, pixel = beyond(table.shell, block, shape)
        here, there = table.shell_row[at] + begin, looked_up(*shells, pixel)
        once = (there >= 0) & (table.shell[at] < pixel)  # the other block sees these pixels, too
        first.append(here[once])
        second.append(there[once])
        contact.append(np.ones(np.count_nonzero(once), np.int64))
        alone.append(here[there < 0])
    return _joined(first), _joined(second), _joined(contact), _joined(alone)


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


def _offsets(tables: Sequence[Table]) -> Integers:
    return np.cumsum([0, *map(len, tables)])


def with_zero(numbers: Labels) -> Labels:
    """What 0 has, 0, before what 1, 2, ... have."""
    return np.concatenate([np.zeros(1, np.int32), numbers])


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays)
