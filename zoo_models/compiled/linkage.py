"""Graphs of what touches, compiled: components, and centroid linkage of nearest neighbours."""

from __future__ import annotations

import heapq

import numba
import numpy as np
from numpy.typing import NDArray

from zoo_models.postprocessing.basin_merging import Integers


@numba.njit(cache=True)
def root_of(parent: Integers, node: int) -> int:
    """The root of a node's tree; the path to it is halved on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True)
def joined(number: int, first: Integers, second: Integers) -> Integers:
    """Component 0, 1, ... of each of `number` nodes joined by edges, in order of first nodes."""
    parent = np.arange(number)
    for edge in range(len(first)):
        a, b = root_of(parent, first[edge]), root_of(parent, second[edge])
        if a != b:  # the smaller node is the root, so the first of its component
            parent[max(a, b)] = min(a, b)
    component = np.empty(number, np.int64)
    count = 0
    for node in range(number):
        if parent[node] == node:
            component[node] = count
            count += 1
        else:
            component[node] = component[root_of(parent, node)]
    return component


@numba.njit(cache=True)
def linked(
    means: NDArray[np.float64],
    sizes: NDArray[np.float64],
    first: Integers,
    second: Integers,
    limit: float,
) -> Integers:
    """As `linked` of the shipped basin merging: the group of each of n rows, (n,).

    The neighbours of a group are a slice of `pool`. When b joins a, their slices are read, and
    what is still there is written behind all others, once each::

        pool  | of 1 | of 2 | of 3 | ... | of a, with b |
    """
    number = len(means)
    centre, size = means.copy(), sizes.copy()
    parent = np.arange(number)
    version = np.zeros(number, np.int64)
    begin, end, pool = _neighbours(number, first, second)
    seen = np.full(number, -1, np.int64)  # in which merge a neighbour was written
    heap = [(0.0, 0, 0, 0, 0) for _ in range(0)]
    for edge in range(len(first)):
        a, b = min(first[edge], second[edge]), max(first[edge], second[edge])
        distance = _between(centre, a, b)
        if distance < limit:
            heap.append((distance, a, b, 0, 0))
    heapq.heapify(heap)
    merges, used = 0, len(pool)
    while len(heap) > 0:
        _, a, b, seen_a, seen_b = heapq.heappop(heap)
        if version[a] != seen_a or version[b] != seen_b:
            continue
        for d in range(centre.shape[1]):
            total = centre[a, d] * size[a] + centre[b, d] * size[b]
            centre[a, d] = total / (size[a] + size[b])
        size[a] += size[b]
        parent[b], version[b] = a, -1
        version[a] += 1
        merges += 1
        needed = used + end[a] - begin[a] + end[b] - begin[b]
        if needed > len(pool):
            longer = np.empty(2 * needed, np.int64)
            longer[:used] = pool[:used]
            pool = longer
        start = used
        for group in (a, b):
            for place in range(begin[group], end[group]):
                other = root_of(parent, pool[place])
                if other != a and seen[other] != merges:
                    seen[other] = merges
                    pool[used] = other
                    used += 1
        begin[a], end[a] = start, used
        for place in range(start, used):
            low, high = min(a, pool[place]), max(a, pool[place])
            distance = _between(centre, low, high)
            if distance < limit:
                heapq.heappush(heap, (distance, low, high, version[low], version[high]))
    for node in range(number):
        parent[node] = root_of(parent, node)
    return parent


@numba.njit(cache=True)
def _neighbours(
    number: int, first: Integers, second: Integers
) -> tuple[Integers, Integers, Integers]:
    """Where each node's neighbours begin and end in a pool, and the pool."""
    count = np.zeros(number + 1, np.int64)
    for edge in range(len(first)):
        count[first[edge] + 1] += 1
        count[second[edge] + 1] += 1
    begin = np.cumsum(count)[:-1]
    end = begin.copy()
    pool = np.empty(2 * len(first), np.int64)
    for edge in range(len(first)):
        a, b = first[edge], second[edge]
        pool[end[a]], pool[end[b]] = b, a
        end[a] += 1
        end[b] += 1
    return begin, end, pool


@numba.njit(cache=True)
def _between(centre: NDArray[np.float64], a: int, b: int) -> float:
    squared = 0.0
    for d in range(centre.shape[1]):
        squared += (centre[a, d] - centre[b, d]) * (centre[a, d] - centre[b, d])
    return float(np.sqrt(squared))
