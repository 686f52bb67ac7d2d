"""Affinities from embeddings, partitioned by mutex watershed (SPOCO Eq. 12; Wolf et al. 2018).

Two pixels whose embeddings are d apart have the weight ::

    w = 1 - max((2 delta_d - d) / (2 delta_d), 0)^2       0: the same instance, 1: two instances

Direct neighbours attract with strength 1 - w; pixels 3, 9 and 27 apart along an axis repel with w::

    o-o        attract: may be joined
    o--+--o    repel: where they are in two segments, these are never joined (a mutex)

Every edge is looked at once, the strongest first. An attracting edge joins its two segments unless
a mutex forbids it; a repelling edge puts a mutex between its two segments unless they are one
already. Of equally strong edges the attracting ones come first, then the shorter ones, those along
the first axis before those along the last, each in the order of their first pixels; edges of
strength 0 say nothing and are left out. This file travels inside packages and imports numpy and
scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]
Nodes = NDArray[np.int32]

ATTRACTING = 1
REPELLING = (3, 9, 27)
"""Distances in pixels, along every axis."""


class MutexWatershed:
    """Clusterer of pixel embeddings by mutex watershed. Distances are in embedding space.

    delta_v, delta_d: margins of the training; the weights depend on delta_d alone.
    min_size: smaller instances are dropped; pixels.
    background: mean embedding of the background; pixels nearer than delta_d to it are 0.

    With neither `background` nor a foreground mask, the largest segment is background, and with it
    every segment whose mean embedding is nearer than delta_d to its own: segments are connected,
    so objects may cut the background into several.

    Raises ValueError: a margin that is not above 0.
    """

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        *,
        min_size: int = 20,
        background: Sequence[float] = (),
    ) -> None:
        _check_margins(delta_v, delta_d)
        self.delta_v = delta_v
        self.delta_d = delta_d
        self.min_size = min_size
        self.background = background

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.

        Raises ValueError: embeddings that are not finite, a mask or a background that does not fit.
        """
        inside = _inside(embeddings, foreground, self.background, self.delta_d)
        if not inside.any():
            return np.zeros(inside.shape, np.int32)
        segments = self._partition(inside.size, *sorted_edges(embeddings, inside, self.delta_d))
        _, clusters = np.unique(segments[inside.ravel()], return_inverse=True)
        if foreground is None and len(self.background) == 0:
            pixels = embeddings.reshape(len(embeddings), -1)
            clusters = _without_background(pixels, clusters, self.delta_d)
        else:
            clusters += 1
        image = np.zeros(inside.shape, np.int32)
        image[inside] = clusters
        return _pieces(image, self.min_size)

    def _partition(self, number: int, first: Nodes, second: Nodes, attracts: Mask) -> Nodes:
        """What the compiled path replaces."""
        return partition(number, first, second, attracts)


def sorted_edges(embeddings: Floats, inside: Mask, delta_d: float) -> tuple[Nodes, Nodes, Mask]:
    """Flat indices (E,) of both ends and whether they attract, in the order they are looked at."""
    index = np.arange(inside.size, dtype=np.int32).reshape(inside.shape)
    ends, strengths, attracts = [], [], []
    for reach in (ATTRACTING, *REPELLING):
        for axis in range(inside.ndim):
            low, high = _pair(axis, inside.ndim, reach)
            step = embeddings[:, *high] - embeddings[:, *low]
            distance = np.sqrt(np.einsum("d...,d...->...", step, step))
            near = np.maximum(1 - distance / np.float32(2 * delta_d), 0) ** 2  # this is 1 - w
            strength = near if reach == ATTRACTING else 1 - near
            there = inside[low] & inside[high] & (strength > 0)
            ends.append(np.stack([index[low][there], index[high][there]]))
            strengths.append(strength[there])
            attracts.append(np.full(ends[-1].shape[1], reach == ATTRACTING))
    order = np.argsort(-np.concatenate(strengths), kind="stable")
    first, second = np.concatenate(ends, axis=1)[:, order]
    return first, second, np.concatenate(attracts)[order]


def partition(number: int, first: Nodes, second: Nodes, attracts: Mask) -> Nodes:
    """Kruskal's algorithm with mutexes: for each node (number,) the first node of its segment.

    first, second: nodes 0..number-1 that an edge connects, (E,), the strongest edge first.
    attracts: whether the edge joins (True) or forbids (False), (E,).
    """
    parent = list(range(number))
    mutexes: list[set[int] | None] = [None] * number  # of a root: the roots it must not join
    for a, b, joins in zip(first.tolist(), second.tolist(), attracts.tolist(), strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a == b:
            continue
        of_a, of_b = mutexes[a], mutexes[b]
        if not joins:
            mutexes[a] = of_a = set() if of_a is None else of_a
            mutexes[b] = of_b = set() if of_b is None else of_b
            of_a.add(b)
            of_b.add(a)
        elif of_a is None:
            parent[a] = b
        elif of_b is None:
            parent[b] = a
        elif b not in of_a:
            if len(of_a) < len(of_b):  # the shorter list is written anew
                a, b, of_a, of_b = b, a, of_b, of_a
            parent[b] = a
            for other in of_b:
                theirs = mutexes[other]
                assert theirs is not None  # a mutex is known on both sides
                theirs.discard(b)
                theirs.add(a)
            of_a |= of_b
            mutexes[b] = None
    return first_of_segment(np.array(parent, np.int32))


def first_of_segment(parent: Nodes) -> Nodes:
    """Of each node's tree the node with the lowest number, for a forest of pointers to parents."""
    while not np.array_equal(parent[parent], parent):
        parent = parent[parent]
    _, lowest, tree = np.unique(parent, return_index=True, return_inverse=True)
    return lowest.astype(np.int32)[tree]


def _without_background(
    pixels: Floats, clusters: NDArray[np.intp], delta_d: float
) -> NDArray[np.intp]:
    """Clusters (N,) 0..n-1 of pixels (D, N) -> 1..n, the largest and those that look alike 0."""
    sizes = np.bincount(clusters)
    sums = np.stack([np.bincount(clusters, channel) for channel in pixels], axis=1)
    means = sums / sizes[:, None]
    apart = np.linalg.norm(means - means[sizes.argmax()], axis=1)
    return np.where(apart[clusters] < delta_d, 0, clusters + 1)


def _pair(axis: int, ndim: int, reach: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of an array, `reach` pixels apart along `axis`; empty where it is shorter."""
    low = tuple(slice(None, -reach) if a == axis else slice(None) for a in range(ndim))
    high = tuple(slice(reach, None) if a == axis else slice(None) for a in range(ndim))
    return low, high


def _check_margins(delta_v: float, delta_d: float) -> None:
    for name, value in (("delta_v", delta_v), ("delta_d", delta_d)):
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name} is {value}, expected a number above 0: give the margin of the training"
            )


def _inside(
    embeddings: Floats, foreground: Mask | None, background: Sequence[float], delta_d: float
) -> Mask:
    """The pixels ([Z,] Y, X) to be clustered: in the mask, and not near the background."""
    shape = embeddings.shape[1:]
    if foreground is not None and foreground.shape != shape:
        raise ValueError(
            f"the foreground mask has shape {foreground.shape}, expected {shape}, that of the "
            "embeddings' pixels: give the mask of this image"
        )
    if len(background) not in (0, len(embeddings)):
        raise ValueError(
            f"background has {len(background)} numbers, expected {len(embeddings)}, one for each "
            "channel of the embeddings: measure it with this network"
        )
    bad = np.count_nonzero(~np.isfinite(embeddings).all(axis=0))
    if bad:
        raise ValueError(
            f"{bad} of {math.prod(shape)} pixels have embeddings that are NaN or infinite, "
            "expected finite numbers: look at the image and the weights they were made from"
        )
    inside = np.ones(shape, bool) if foreground is None else foreground.astype(bool)
    if len(background):
        squared = np.zeros(shape, np.float32)
        for channel, value in zip(embeddings, background, strict=True):
            squared += (channel - np.float32(value)) ** 2
        inside &= squared >= delta_d**2
    return inside


def _pieces(clusters: Labels, min_size: int) -> Labels:
    """Connected pieces (by faces) of clusters > 0, 1..n; those under min_size pixels are 0."""
    index = np.arange(clusters.size, dtype=np.int32).reshape(clusters.shape)
    ends = []
    for axis in range(clusters.ndim):
        cluster, place = np.moveaxis(clusters, axis, 0), np.moveaxis(index, axis, 0)
        same = (cluster[:-1] == cluster[1:]) & (cluster[1:] > 0)
        ends.append(np.stack([place[:-1][same], place[1:][same]]))
    first, second = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(first.size, bool), (first, second)), (clusters.size,) * 2)
    number, piece = connected_components(graph, directed=False)
    sizes = np.bincount(piece[clusters.ravel() > 0], minlength=number)
    kept = sizes >= max(min_size, 1)
    label = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    pieces: Labels = label[piece].reshape(clusters.shape)
    return pieces
