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
    contact: Integers,
    limits: tuple[float, float],
    ndim: int,
) -> Integers:
    """As `linked` of the shipped basin merging: the group of each of n rows, (n,).

    The neighbours of a group are a slice of `pool`, with the contact to each in `width`. When b
    joins a, their slices are read, and what is still there is written behind all others, once
    each::

        pool  | of 1 | of 2 | of 3 | ... | of a, with b |
    """
    number = len(means)
    centre, size = means.copy(), sizes.copy()
    parent = np.arange(number)
    version = np.zeros(number, np.int64)
    begin, end, pool, width = _neighbours(number, first, second, contact)
    seen = np.full(number, -1, np.int64)  # in which merge a neighbour was written, and where
    written = np.empty(number, np.int64)
    heap = [(0.0, 0, 0, 0, 0) for _ in range(0)]
    for edge in range(len(first)):
        a, b = min(first[edge], second[edge]), max(first[edge], second[edge])
        distance = _between(centre, a, b)
        tension = _tension(distance, min(size[a], size[b]), contact[edge], ndim)
        if distance < limits[0] and tension < limits[1]:
            heap.append((tension, a, b, 0, 0))
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
            pool, width = _longer(pool, used, 2 * needed), _longer(width, used, 2 * needed)
        start = used
        for group in (a, b):
            for place in range(begin[group], end[group]):
                other = root_of(parent, pool[place])
                if other == a:
                    continue
                if seen[other] != merges:
                    seen[other], written[other] = merges, used
                    pool[used], width[used] = other, 0
                    used += 1
                width[written[other]] += width[place]
        begin[a], end[a] = start, used
        for place in range(start, used):
            low, high = min(a, pool[place]), max(a, pool[place])
            distance = _between(centre, low, high)
            tension = _tension(distance, min(size[low], size[high]), width[place], ndim)
            if distance < limits[0] and tension < limits[1]:
                heapq.heappush(heap, (tension, low, high, version[low], version[high]))
    for node in range(number):
        parent[node] = root_of(parent, node)
    return parent


@numba.njit(cache=True)
def _neighbours(
    number: int, first: Integers, second: Integers, contact: Integers
) -> tuple[Integers, Integers, Integers, Integers]:
    """Where each node's neighbours begin and end in a pool, the pool, and the contact to each."""
    count = np.zeros(number + 1, np.int64)
    for edge in range(len(first)):
        count[first[edge] + 1] += 1
        count[second[edge] + 1] += 1
    begin = np.cumsum(count)[:-1]
    end = begin.copy()
    pool, width = np.empty(2 * len(first), np.int64), np.empty(2 * len(first), np.int64)
    for edge in range(len(first)):
        a, b = first[edge], second[edge]
        pool[end[a]], pool[end[b]] = b, a
        width[end[a]] = width[end[b]] = contact[edge]
        end[a] += 1
        end[b] += 1
    return begin, end, pool, width


@numba.njit(cache=True)
def _between(centre: NDArray[np.float64], a: int, b: int) -> float:
    squared = 0.0
    for d in range(centre.shape[1]):
        squared += (centre[a, d] - centre[b, d]) * (centre[a, d] - centre[b, d])
    return float(np.sqrt(squared))


@numba.njit(cache=True)
def _tension(distance: float, smaller: float, contact: int, ndim: int) -> float:
    """As `tensions` of the shipped basin merging, of one pair."""
    of_pixel = distance / contact
    tension = of_pixel
    for _ in range(ndim - 1):
        tension = tension * (of_pixel * smaller)
    return tension


@numba.njit(cache=True)
def _longer(values: Integers, used: int, length: int) -> Integers:
    longer = np.empty(length, np.int64)
    longer[:used] = values[:used]
    return longer
