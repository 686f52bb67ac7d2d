"""The mutex watershed with its loop over the edges compiled; everything else is the shipped file's.

Segments are trees of nodes. A mutex between the roots a < b is the key a * number + b in a hash
set, so asking for one takes one look. For joining, every root also has a list of its mutexes::

    head[root] -> entry -> entry -> entry <- tail[root]     each entry names a node on the other
                                                            side, whose root is looked up when read

To join two segments, the shorter list is read, its keys are written anew for the new root, and it
is put behind the longer one.
"""

from __future__ import annotations

import numba
import numpy as np

from zoo_models.postprocessing import mutex_watershed as shipped
from zoo_models.postprocessing.mutex_watershed import Mask, Nodes

NOTHING = -1


class MutexWatershed(shipped.MutexWatershed):
    """As the shipped class, with the same labels."""

    def _partition(self, number: int, first: Nodes, second: Nodes, attracts: Mask) -> Nodes:
        return partition(number, first, second, attracts)


def partition(number: int, first: Nodes, second: Nodes, attracts: Mask) -> Nodes:
    """As the shipped function of this name."""
    return shipped.first_of_segment(_joined(number, first, second, attracts))


@numba.njit(cache=True)
def _find(parent: Nodes, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True)
def _key(number: int, a: int, b: int) -> np.int64:
    return np.int64(min(a, b)) * np.int64(number) + np.int64(max(a, b))


@numba.njit(cache=True)
def _joined(number: int, first: Nodes, second: Nodes, attracts: Mask) -> Nodes:
    """The forest of parents (number,)."""
    parent = np.arange(number).astype(np.int32)
    forbidden = {np.int64(NOTHING)}
    head = np.full(number, NOTHING, np.int64)
    tail = np.full(number, NOTHING, np.int64)
    length = np.zeros(number, np.int64)
    mutexes = 2 * np.count_nonzero(~attracts)
    other_side = np.empty(mutexes, np.int32)
    following = np.full(mutexes, NOTHING, np.int64)
    entry = 0
    for edge in range(len(first)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a == b or _key(number, a, b) in forbidden:
            continue
        if not attracts[edge]:
            forbidden.add(_key(number, a, b))
            for root, other in ((a, b), (b, a)):
                other_side[entry], following[entry] = other, head[root]
                head[root] = entry
                if tail[root] == NOTHING:
                    tail[root] = entry
                length[root] += 1
                entry += 1
            continue
        if length[a] < length[b]:
            a, b = b, a
        parent[b] = a
        place = head[b]
        while place != NOTHING:
            forbidden.add(_key(number, a, _find(parent, other_side[place])))
            place = following[place]
        if head[b] != NOTHING:
            following[tail[a]] = head[b]
            tail[a], length[a] = tail[b], length[a] + length[b]
    return parent
