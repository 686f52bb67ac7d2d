"""Objects that lie in one block as a whole are finished there; only the others enter the tables.

    +-----------------------+
    |  (a)      /-b-\\       |      a  its pixels, and all that touch them, lie inside: finished
    |          |     |  c---+--     b  touches c
    |           \\---/-------+--     c  reaches the shell: open, and so is b
    +-----------------------+

All that decides about an object looks at fragments that touch, so objects that do not touch are
decided apart. With cells that lie apart, the tables grow with the seams, not with the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging, Floats, Integers, Labels, Mask
from zoo_models.prediction.fragments import Fragments
from zoo_models.prediction.merge import merge_fragments, merge_parts, parts, with_zero


@dataclass(frozen=True, eq=False)
class BlockFragments:
    """What one block knows of its objects, from its own embeddings.

    Attributes:
        label: finished instances 1..k of each pixel, else 0.
        start: (k,) their first pixels, flat indices into the whole image, ascending.
        table: the open fragments.
        fragment: of each pixel the open fragment, a row from 1 on, else 0.
        distance: from the background, where there is an open fragment, else 0.
    """

    label: Labels
    start: Integers
    table: Fragments
    fragment: Labels
    distance: Floats


def finish_enclosed(
    clusterer: BasinMerging,
    found: tuple[Fragments, Labels, Floats],
    block: Box,
    shape: tuple[int, ...],
) -> BlockFragments:
    """Split what `fragments` found in a block of an image of `shape`, and finish what it can."""
    table, fragment, distance = found
    reaching = open_rows(clusterer, table)
    inner = replace(table.only(~reaching), own=np.ones(np.count_nonzero(~reaching), bool))
    label, start = np.zeros(block.shape, np.int32), np.zeros(0, np.int64)
    if len(inner):
        (groups,) = merge_fragments(clusterer, {block: inner}, shape)
        of_pixel = _renumbered(fragment, ~reaching)
        part_table, part = parts(clusterer, groups, of_pixel, distance, block, shape)
        (number,), start = merge_parts(clusterer, {block: part_table}, shape)
        label = clusterer.painted(part, with_zero(number))
    outer = _renumbered(fragment, reaching)
    return BlockFragments(
        label, start, table.only(reaching), outer, np.where(outer > 0, distance, np.float32(0))
    )


def all_enclosed(labels: Labels, dim: int) -> BlockFragments:
    """Instances 1..k of an image that was clustered in one piece: there is nothing beyond it."""
    _, start = np.unique(labels, return_index=True)
    start = start[labels.ravel()[start] > 0]
    order = np.argsort(start)  # finished instances are ascending by first pixel
    number = np.zeros(len(start) + 1, np.int32)
    number[1 + order] = np.arange(1, len(start) + 1)
    none = np.zeros(0, np.int64)
    table = Fragments(
        end=none,
        own=none > 0,
        bottom=np.zeros((0, dim), np.float32),
        size=none,
        distance=np.zeros(0),
        settled=none,
        first=none,
        second=none,
        contact=none,
        shell=none,
        shell_row=none,
    )
    empty = np.zeros(labels.shape, np.int32)
    return BlockFragments(number[labels], start[order], table, empty, empty.astype(np.float32))


def open_rows(clusterer: BasinMerging, table: Fragments) -> Mask:
    """Rows (n,) that end outside, have pixels on the shell, or touch such, over any number."""
    reaching = ~table.own
    reaching[table.shell_row] = True
    component = clusterer.components(len(table), table.first, table.second)
    open_ = np.zeros(len(table), bool)
    open_[component[reaching]] = True
    found: Mask = open_[component]
    return found


def _renumbered(fragment: Labels, rows: Mask) -> Labels:
    """Pixels with the new row of their fragment among `rows`, from 1 on, else 0."""
    number = np.zeros(len(rows) + 1, np.int32)
    number[1:] = np.where(rows, np.cumsum(rows), 0)
    return number[fragment]
