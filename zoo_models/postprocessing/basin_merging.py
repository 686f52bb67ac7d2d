"""Instances from embeddings: flat basins, merged by their means. Linear in the image, no seeds.

Training gives the embedding space a known shape: pixels lie within delta_v of their instance's
mean, means at least 2 delta_d apart. Seen as a landscape of how fast embeddings change, every
instance is a flat valley (or a few), and a ridge runs where one meets another::

    change of embedding        /\\            /\\      /\\
    from pixel to pixel  _____/  \\____/\\____/  \\____/  \\_____
    basins               |  1  ||   2  |  3   ||   4  ||  5  |
    merged by mean       | bg  ||      A      ||   B  || bg  |

1. every pixel walks downhill to a minimum: pixels that end together are a basin (watershed by
   steepest descent); a thin boundary can leak into no neighbour, as it does when pixels are linked
2. touching basins whose embeddings at the minimum differ by less than `join` are one
3. of the rest, the two touching groups with the nearest means are merged, again and again, until
   no two are nearer than `merge`
4. groups near the background's embedding become 0; pixels where labels meet take the nearest label,
   the background being favoured by `boundary`
5. connected pieces of at least `min_size` pixels are the instances

Only touching groups merge, so two distant objects that look alike, and so share an embedding, stay
two. This file travels inside packages and imports numpy and scipy only.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Slices = tuple[slice, ...]


class BasinMerging:
    """Clusterer of pixel embeddings. Distances are Euclidean, in embedding space.

    join: largest distance between two touching basins of one valley; above delta_v's noise.
    merge: largest distance between the means of two touching parts of one instance; between
        2 delta_v, the width of an instance, and 2 delta_d, the distance of two.
    boundary: a pixel at distance d from its instance and b from the background, where both meet,
        belongs to the instance if boundary * d < b. 1 is halfway; more makes instances slimmer,
        which the pull term asks for: one pixel weighs more in a small instance than in the large
        background, so blurred boundaries lean to the instance.
    min_size: smaller instances are dropped; pixels.
    background: mean embedding of the background; empty: that of the largest group.
    """

    def __init__(
        self,
        join: float = 0.8,
        merge: float = 2.5,
        boundary: float = 2.0,
        min_size: int = 20,
        background: tuple[float, ...] | list[float] = (),
    ) -> None:
        self.join = join
        self.merge = merge
        self.boundary = boundary
        self.min_size = min_size
        self.background = background

    def __call__(self, embeddings: Floats, foreground: NDArray[np.bool_] | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.
        """
        if embeddings.size == 0:
            return np.zeros(embeddings.shape[1:], np.int32)
        groups, means = _valleys(embeddings, self.join)
        groups, means = _merge_nearest(groups, means, self.merge)
        background = np.asarray(self.background, np.float32)
        if background.size == 0:
            background = means[np.bincount(groups.ravel()).argmax()]
        is_background = np.linalg.norm(means - background, axis=1) < self.merge
        labels = np.where(is_background, 0, np.arange(1, len(means) + 1)).astype(np.int32)[groups]
        labels = _settle(embeddings, labels, background, self.boundary)
        if foreground is not None:
            labels[~foreground] = 0
        return _pieces(labels, self.min_size)


def _valleys(embeddings: Floats, join: float) -> tuple[Labels, Floats]:
    """Steps 1 and 2: groups ([Z,] Y, X) numbered 0..n-1 and their mean embeddings (n, D)."""
    roots, basins = _basins(_change(embeddings))
    smooth = (ndimage.uniform_filter(channel, 3).ravel()[roots] for channel in embeddings)
    bottoms = np.stack(list(smooth), axis=1)
    first, second = _touching(basins)
    near = np.linalg.norm(bottoms[first] - bottoms[second], axis=1) < join
    graph = coo_array(
        (np.ones(near.sum(), bool), (first[near], second[near])), (len(roots), len(roots))
    )
    number, valley = connected_components(graph, directed=False)
    sizes = np.bincount(basins.ravel())
    weight = np.bincount(valley, weights=sizes, minlength=number)
    sums = [np.bincount(valley, weights=sizes * values) for values in bottoms.T]
    means = (np.stack(sums, axis=1) / weight[:, None]).astype(np.float32)
    return valley.astype(np.int32)[basins], means


def _change(embeddings: Floats) -> Floats:
    """How much a pixel differs from its direct neighbours: summed squares, smoothed."""
    change = np.zeros(embeddings.shape[1:], np.float32)
    for axis in range(change.ndim):
        low, high = _pair(axis, change.ndim)
        step = embeddings[:, *high] - embeddings[:, *low]
        squared = np.einsum("d...,d...->...", step, step)
        change[low] += squared
        change[high] += squared
    for axis in range(change.ndim):  # the middle weighs most, so that 3 pixels can be a valley
        change = ndimage.convolve1d(change, [0.25, 0.5, 0.25], axis=axis)
    return change


def _basins(height: Floats) -> tuple[NDArray[np.intp], Labels]:
    """Flat indices (n,) of the minima, and which minimum each pixel walks down to.

    Every pixel points to the lowest of its neighbours (diagonal ones too; of equal ones the first),
    itself included; following pointers to pointers doubles the distance walked each time.
    """
    shape = height.shape
    index = np.arange(height.size).reshape(shape)
    lowest, target = height.copy(), index.copy()
    for offset in itertools.product((-1, 0, 1), repeat=height.ndim):
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
        lower = height[there] < lowest[here]
        tied = (height[there] == lowest[here]) & (index[there] < target[here])
        lowest[here] = np.where(lower, height[there], lowest[here])
        target[here] = np.where(lower | tied, index[there], target[here])
    walked = target.ravel()
    while not np.array_equal(walked[walked], walked):
        walked = walked[walked]
    roots, basin = np.unique(walked, return_inverse=True)
    return roots, basin.reshape(shape).astype(np.int32)


def _merge_nearest(groups: Labels, means: Floats, limit: float) -> tuple[Labels, Floats]:
    """Step 3: centroid linkage between touching groups, nearest first."""
    number = len(means)
    centre, size = means.astype(float), np.bincount(groups.ravel(), minlength=number).astype(float)
    beside: list[set[int]] = [set() for _ in range(number)]
    pairs = np.stack(_touching(groups), axis=1)
    for a, b in pairs.tolist():
        beside[a].add(b)
        beside[b].add(a)
    version, into = [0] * number, np.arange(number)
    heap = [(d, a, b, 0, 0) for d, (a, b) in _distances(centre, pairs) if d < limit]
    heapq.heapify(heap)
    while heap:
        _, a, b, seen_a, seen_b = heapq.heappop(heap)
        if version[a] != seen_a or version[b] != seen_b:
            continue  # one of them has grown, or is gone, since this pair was measured
        centre[a] = (centre[a] * size[a] + centre[b] * size[b]) / (size[a] + size[b])
        size[a] += size[b]
        into[b], version[b] = a, -1
        version[a] += 1
        beside[a] = (beside[a] | beside[b]) - {a, b}
        for other in beside[b] - {a}:
            beside[other] = (beside[other] - {b}) | {a}
        again = np.array([(a, other) for other in sorted(beside[a])]).reshape(-1, 2)
        for distance, (_, other) in _distances(centre, again):
            if distance < limit:
                heapq.heappush(heap, (distance, a, other, version[a], version[other]))
    while not np.array_equal(into[into], into):
        into = into[into]
    roots, merged = np.unique(into, return_inverse=True)
    return merged.astype(np.int32)[groups], centre[roots].astype(np.float32)


def _distances(
    centre: NDArray[np.float64], pairs: NDArray[np.int_]
) -> list[tuple[float, tuple[int, int]]]:
    length = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1)
    return [(d, (a, b)) for d, (a, b) in zip(length.tolist(), pairs.tolist(), strict=True)]


def _settle(embeddings: Floats, labels: Labels, background: Floats, boundary: float) -> Labels:
    """Step 4: a pixel beside another label takes the nearest of its own and its neighbours'.

    Every change brings a pixel nearer to its label, so this ends.
    """
    flat, labels = embeddings.reshape(len(embeddings), -1), labels.copy()
    counts = np.maximum(np.bincount(labels.ravel()), 1)
    sums = [np.bincount(labels.ravel(), weights=channel) for channel in flat]
    means = (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32)
    means[0] = background
    weight = np.where(np.arange(len(means)) == 0, 1.0, boundary).astype(np.float32)
    while True:
        place, beside = _borders(labels)
        pixels = flat[:, place].T
        own = labels.ravel()[place]
        nearest = weight[own] * np.linalg.norm(pixels - means[own], axis=1)
        choice = own.copy()
        for label in beside:
            distance = weight[label] * np.linalg.norm(pixels - means[label], axis=1)
            closer = distance < nearest
            nearest[closer], choice[closer] = distance[closer], label[closer]
        if np.array_equal(choice, own):
            return labels
        labels.ravel()[place] = choice


def _borders(labels: Labels) -> tuple[NDArray[np.intp], list[Labels]]:
    """Flat indices of the pixels with another label beside them, and each of their neighbours'."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        low, high = _pair(axis, labels.ndim)
        differ = labels[low] != labels[high]
        border[low] |= differ
        border[high] |= differ
    place = np.flatnonzero(border)
    position = np.unravel_index(place, labels.shape)
    beside = []
    for axis, offset in itertools.product(range(labels.ndim), (-1, 1)):
        moved = list(position)
        moved[axis] = np.clip(position[axis] + offset, 0, labels.shape[axis] - 1)
        beside.append(labels[tuple(moved)])
    return place, beside


def _pieces(labels: Labels, min_size: int) -> Labels:
    """Step 5, and numbers 1..n in the order of the old ones."""
    result = np.zeros_like(labels)
    number = 0
    for old, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, _ = ndimage.label(labels[box] == old)
        sizes = np.bincount(pieces.ravel())
        for piece in range(1, len(sizes)):
            if sizes[piece] >= min_size:
                number += 1
                result[box][pieces == piece] = number
    return result


def _touching(groups: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair a < b of groups that are direct neighbours somewhere, once."""
    number = np.int64(groups.max()) + 1
    keys = []
    for axis in range(groups.ndim):
        low, high = _pair(axis, groups.ndim)
        first, second = groups[low].ravel(), groups[high].ravel()
        differ = first != second
        first, second = first[differ], second[differ]
        keys.append(np.minimum(first, second) * number + np.maximum(first, second))
    unique = np.unique(np.concatenate(keys))
    return unique // number, unique % number


def _pair(axis: int, ndim: int) -> tuple[Slices, Slices]:
    """Two views of an array, one pixel apart along `axis`."""
    low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(ndim))
    high = tuple(slice(1, None) if a == axis else slice(None) for a in range(ndim))
    return low, high
