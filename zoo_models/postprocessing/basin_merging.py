"""Instances from embeddings: flat basins, merged by their means. Linear in the image, no seeds.

Training gives the embedding space a known shape: pixels lie within delta_v of their instance's
mean, means at least 2 delta_d apart; the background of all images is at one known place. Seen as a
landscape of how fast embeddings change, every instance is a flat valley (or a few), and a ridge
runs where one meets another::

    change of embedding             /\\            /\\
    from pixel to pixel    ____/\\__/  \\____/\\____/  \\____
    basins                | 1 |  2 ||  3   |  4   ||  5  |
    merged by mean        |   A    ||      B      ||  C  |

1. pixels within `radius` of the background's embedding are background; where that is a cloud, wide
   along some dimensions and narrow along others, `spread` measures the distance in its widths
2. every other pixel walks downhill to a minimum: pixels that end together are a basin (watershed by
   steepest descent). It ends at its ridge all around, where linking neighbours pixel by pixel would
   leak through the weakest spot of a boundary
3. touching basins whose embeddings at the minimum differ by less than `join` are one valley
4. of the rest, the two touching groups with the nearest means are merged, again and again, until
   no two are nearer than `merge`
5. pixels where two groups meet take the one with the nearer mean; pixels much nearer to the
   background than their group is (`solid`) are its blurred rim, and become background
6. connected pieces of at least `min_size` pixels are the instances, their holes filled

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
Mask = NDArray[np.bool_]
Slices = tuple[slice, ...]


class BasinMerging:
    """Clusterer of pixel embeddings. Distances are Euclidean, in embedding space, but for `spread`.

    join: largest distance between two touching basins of one valley; above the noise.
    merge: largest distance between the means of two touching parts of one instance; between
        2 delta_v, the width of an instance, and 2 delta_d, the distance of two.
    radius: a pixel at this distance from the background, or further, may be object; delta_d is
        halfway. The pull term asks for more: a pixel weighs more in a small instance than in the
        large background, so a blurred boundary leans to the instance.
    solid: of a group whose pixels are b from the background in the mean, those nearer than
        solid * b are background; 0 keeps all.
    min_size: smaller instances are dropped; pixels.
    background: mean embedding of the background; empty: that of the largest valley.
    spread: D * D numbers, row by row a matrix W. The distance of an embedding e from the background
        is then ||W (e - background)||, and `radius` and `solid` are in its units; no other distance
        changes. With the inverse square root of the background's covariance as W, distances are in
        standard deviations of the background. Empty: ||e - background||.

    Raises ValueError: `spread` has not D * D numbers for the D of `background`.
    """

    def __init__(
        self,
        join: float = 0.8,
        merge: float = 3.2,
        radius: float = 3.8,
        solid: float = 0.9,
        min_size: int = 20,
        background: tuple[float, ...] | list[float] = (),
        spread: tuple[float, ...] | list[float] = (),
    ) -> None:
        if len(spread) not in (0, len(background) ** 2):
            raise ValueError(
                f"spread has {len(spread)} numbers and background has {len(background)}, expected "
                "D * D and D, or no spread; measure both on the same embeddings"
            )
        self.join = join
        self.merge = merge
        self.radius = radius
        self.solid = solid
        self.min_size = min_size
        self.background = background
        self.spread = spread

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.
        """
        if embeddings.size == 0:
            return np.zeros(embeddings.shape[1:], np.int32)
        distance = self._from_background(embeddings)
        inside = distance >= self.radius
        if foreground is not None:
            inside &= foreground
        groups, means = _valleys(embeddings, inside, self.join)
        groups = _settle(embeddings, _merge_nearest(groups, means, self.merge))
        total = np.bincount(groups.ravel(), weights=distance.ravel())
        typical = total / np.maximum(np.bincount(groups.ravel()), 1)
        return _pieces(groups, distance >= self.solid * typical[groups], self.min_size)

    def _from_background(self, embeddings: Floats) -> Floats:
        """Distance ([Z,] Y, X) of every pixel from the background's place, in units of `spread`."""
        place = np.asarray(self.background, np.float32)
        if place.size == 0:
            everywhere = np.ones(embeddings.shape[1:], bool)
            valleys, means = _valleys(embeddings, everywhere, self.join)
            place = means[np.bincount(valleys.ravel()).argmax()]
        squared = np.zeros(embeddings.shape[1:], np.float32)
        if len(self.spread) == 0:
            for channel, value in zip(embeddings, place, strict=True):
                squared += (channel - value) ** 2
            return np.sqrt(squared)
        for row in np.asarray(self.spread, np.float32).reshape(place.size, place.size):
            along = np.zeros_like(squared)
            for weight, channel, value in zip(row, embeddings, place, strict=True):
                along += weight * (channel - value)
            squared += along**2
        return np.sqrt(squared)


def _valleys(embeddings: Floats, inside: Mask, join: float) -> tuple[Labels, Floats]:
    """Steps 2 and 3: groups numbered 1..n, 0 outside, and means (n + 1, D), row 0 not used."""
    roots, basins = _basins(_change(embeddings), inside)
    covered = np.maximum(ndimage.uniform_filter(inside.astype(np.float32), 3).ravel()[roots], 1e-6)
    bottoms = np.zeros((len(roots) + 1, len(embeddings)), np.float32)
    for d, channel in enumerate(embeddings):
        smooth = ndimage.uniform_filter(np.where(inside, channel, 0), 3)
        bottoms[1:, d] = smooth.ravel()[roots] / covered
    first, second = _touching(basins)
    near = np.linalg.norm(bottoms[first] - bottoms[second], axis=1) < join
    edges = (np.ones(near.sum(), bool), (first[near], second[near]))
    graph = coo_array(edges, (len(bottoms), len(bottoms)))
    number, valley = connected_components(graph, directed=False)
    sizes = np.bincount(basins.ravel(), minlength=len(bottoms))
    weight = np.maximum(np.bincount(valley, weights=sizes, minlength=number), 1)
    sums = [np.bincount(valley, weights=sizes * values, minlength=number) for values in bottoms.T]
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


def _basins(height: Floats, inside: Mask) -> tuple[NDArray[np.intp], Labels]:
    """Flat indices (n,) of the minima, and basins 1..n of the pixels that walk down to them.

    Every pixel points to the lowest of its neighbours (diagonal ones too; of equal ones the first),
    itself included; following pointers to pointers doubles the distance walked each time.
    """
    shape, height = height.shape, np.where(inside, height, np.inf)
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
    basins = np.zeros(shape, np.int32)
    roots, basin = np.unique(walked[inside.ravel()], return_inverse=True)
    basins[inside] = basin + 1
    return roots, basins


def _merge_nearest(groups: Labels, means: Floats, limit: float) -> Labels:
    """Step 4: centroid linkage between touching groups, nearest first."""
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
        again = np.array([(a, other) for other in sorted(beside[a])], np.int64).reshape(-1, 2)
        for distance, (_, other) in _distances(centre, again):
            if distance < limit:
                heapq.heappush(heap, (distance, a, other, version[a], version[other]))
    while not np.array_equal(into[into], into):
        into = into[into]
    return into.astype(np.int32)[groups]


def _distances(
    centre: NDArray[np.float64], pairs: NDArray[np.int_]
) -> list[tuple[float, tuple[int, int]]]:
    length = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1)
    return [(d, (a, b)) for d, (a, b) in zip(length.tolist(), pairs.tolist(), strict=True)]


def _settle(embeddings: Floats, groups: Labels) -> Labels:
    """Step 5. Every change brings a pixel nearer to its group's mean, so this ends."""
    flat, groups = embeddings.reshape(len(embeddings), -1), groups.copy()
    counts = np.maximum(np.bincount(groups.ravel()), 1)
    sums = [np.bincount(groups.ravel(), weights=channel) for channel in flat]
    means = (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32)
    while True:
        place, beside = _borders(groups)
        pixels = flat[:, place].T
        own = groups.ravel()[place]
        nearest = np.linalg.norm(pixels - means[own], axis=1)
        choice = own.copy()
        for group in beside:
            distance = np.linalg.norm(pixels - means[group], axis=1)
            closer = (distance < nearest) & (group > 0)
            nearest[closer], choice[closer] = distance[closer], group[closer]
        if np.array_equal(choice, own):
            return groups
        groups.ravel()[place] = choice


def _borders(groups: Labels) -> tuple[NDArray[np.intp], list[Labels]]:
    """Flat indices of grouped pixels beside another group, and the group of each neighbour."""
    border = np.zeros(groups.shape, bool)
    for axis in range(groups.ndim):
        low, high = _pair(axis, groups.ndim)
        differ = (groups[low] != groups[high]) & (groups[low] > 0) & (groups[high] > 0)
        border[low] |= differ
        border[high] |= differ
    place = np.flatnonzero(border)
    position = np.unravel_index(place, groups.shape)
    beside = []
    for axis, offset in itertools.product(range(groups.ndim), (-1, 1)):
        moved = list(position)
        moved[axis] = np.clip(position[axis] + offset, 0, groups.shape[axis] - 1)
        beside.append(groups[tuple(moved)])
    return place, beside


def _pieces(groups: Labels, solid: Mask, min_size: int) -> Labels:
    """Step 6: the solid pieces of each group, holes in them filled with the group's own pixels."""
    result = np.zeros_like(groups)
    number = 0
    for group, box in enumerate(ndimage.find_objects(groups), start=1):
        if box is None:
            continue
        own = groups[box] == group
        pieces, _ = ndimage.label(own & solid[box])
        sizes = np.bincount(pieces.ravel())
        for piece in np.flatnonzero(sizes[1:] >= min_size) + 1:
            number += 1
            result[box][own & ndimage.binary_fill_holes(pieces == piece)] = number
    return result


def _touching(groups: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair 0 < a < b of groups that are direct neighbours somewhere, once."""
    number = np.int64(groups.max()) + 1
    keys = []
    for axis in range(groups.ndim):
        low, high = _pair(axis, groups.ndim)
        first, second = groups[low].ravel(), groups[high].ravel()
        differ = (first != second) & (first > 0) & (second > 0)
        first, second = first[differ], second[differ]
        keys.append(np.minimum(first, second) * number + np.maximum(first, second))
    unique = np.unique(np.concatenate(keys))
    return unique // number, unique % number


def _pair(axis: int, ndim: int) -> tuple[Slices, Slices]:
    """Two views of an array, one pixel apart along `axis`."""
    low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(ndim))
    high = tuple(slice(1, None) if a == axis else slice(None) for a in range(ndim))
    return low, high
