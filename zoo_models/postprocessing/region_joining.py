"""Instances from embeddings by joining neighbouring pixels, in time linear in the image.

Training gives the embedding space a known shape: pixels lie within delta_v of their instance's
mean, means at least 2 delta_d apart. So neighbours inside an instance are close, and where one
instance meets another there is a step. In order:

    1. join neighbouring pixels whose embeddings differ by less than `join`       -> regions
    2. drop regions smaller than `min_region`: they are boundary, not object
    3. join touching regions whose mean embeddings differ by less than `merge`
    4. give every pixel left over to the neighbouring region with the nearest mean, inwards
    5. regions whose mean is within `merge` of the background's become 0
    6. drop instances smaller than `min_size`

Two objects far apart may share an embedding; they stay two, since only neighbours are joined.

This file travels inside packages and imports numpy and scipy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


class RegionJoining:
    """Args (distances in embedding space, sizes in pixels):

    join: largest step between neighbouring pixels of one region; delta_v.
    merge: largest distance between the means of touching regions of one instance; delta_d.
    min_region: smaller regions are boundary; their pixels are given away.
    min_size: smaller instances are dropped.
    background: mean embedding of the background; empty: that of the largest region.
    """

    def __init__(
        self,
        join: float = 0.5,
        merge: float = 2.0,
        min_region: int = 10,
        min_size: int = 20,
        background: tuple[float, ...] | list[float] = (),
    ) -> None:
        self.join = join
        self.merge = merge
        self.min_region = min_region
        self.min_size = min_size
        self.background = background

    def __call__(self, embeddings: Floats, foreground: NDArray[np.bool_] | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.
        """
        shape = embeddings.shape[1:]
        if embeddings.size == 0:
            return np.zeros(shape, np.int32)
        regions = self._regions(embeddings)
        if regions.max() == 0:
            return np.zeros(shape, np.int32)
        means = _means(embeddings, regions)
        regions, means = self._merge(embeddings, regions, means)
        regions = _give_away(embeddings, regions, means)
        labels = self._drop_background(regions, means)
        if foreground is not None:
            labels[~foreground] = 0
        return _drop_small(labels, self.min_size)

    def _regions(self, embeddings: Floats) -> Labels:
        """Steps 1 and 2: 0 where no region is, else 1..n."""
        shape = embeddings.shape[1:]
        pixels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        edges = []
        for axis in range(len(shape)):
            low, high = _pair(axis, len(shape))
            step = embeddings[:, *high] - embeddings[:, *low]
            close = np.einsum("d...,d...->...", step, step) < self.join**2
            edges.append(np.stack([pixels[low][close], pixels[high][close]]))
        regions = _components(np.concatenate(edges, axis=1), pixels.size).reshape(shape)
        return _drop_small(regions + 1, self.min_region)

    def _merge(self, embeddings: Floats, regions: Labels, means: Floats) -> tuple[Labels, Floats]:
        """Step 3. Regions touch when at most two pixels of boundary lie between them."""
        pairs = []
        for axis in range(regions.ndim):
            for gap in (1, 2, 3):
                low, high = _pair(axis, regions.ndim, gap)
                first, second = regions[low].ravel(), regions[high].ravel()
                differ = (first != second) & (first > 0) & (second > 0)
                pairs.append(np.stack([first[differ], second[differ]]))
        touching = np.unique(np.concatenate(pairs, axis=1), axis=1)
        distance = np.linalg.norm(means[touching[0]] - means[touching[1]], axis=1)
        joined = _components(touching[:, distance < self.merge], len(means)) + 1
        joined[0] = 0
        regions = _consecutive(joined[regions])
        return regions, _means(embeddings, regions)

    def _drop_background(self, regions: Labels, means: Floats) -> Labels:
        background = np.asarray(self.background, np.float32)
        if background.size == 0:
            background = means[np.bincount(regions.ravel(), minlength=len(means))[1:].argmax() + 1]
        near = np.linalg.norm(means - background, axis=1) < self.merge
        return np.where(near[regions], 0, regions).astype(np.int32)


def _pair(axis: int, ndim: int, gap: int = 1) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Two views of an array, `gap` pixels apart along `axis`."""
    low = tuple(slice(None, -gap) if a == axis else slice(None) for a in range(ndim))
    high = tuple(slice(gap, None) if a == axis else slice(None) for a in range(ndim))
    return low, high


def _components(edges: NDArray[np.int32], nodes: int) -> Labels:
    """Component 0..n-1 of each node of a graph with edges (2, E)."""
    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), (nodes, nodes))
    component: Labels = connected_components(graph, directed=False)[1].astype(np.int32)
    return component


def _consecutive(labels: Labels) -> Labels:
    """The same regions numbered 1..n; 0 stays 0."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    number = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return number[labels]


def _drop_small(labels: Labels, min_size: int) -> Labels:
    sizes = np.bincount(labels.ravel())
    small = sizes < min_size
    return _consecutive(np.where(small[labels], 0, labels).astype(np.int32))


def _means(embeddings: Floats, regions: Labels) -> Floats:
    """(n + 1, D) mean embedding of each region; row 0 (no region) is not used."""
    index = regions.ravel()
    counts = np.maximum(np.bincount(index), 1)
    sums = [np.bincount(index, weights=channel.ravel()) for channel in embeddings]
    return (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32)


def _give_away(embeddings: Floats, regions: Labels, means: Floats) -> Labels:
    """Step 4: regions grow by a pixel at a time until nothing is left over."""
    regions = regions.copy()
    flat = embeddings.reshape(len(embeddings), -1)
    while True:
        free = np.flatnonzero(regions == 0)
        place = np.stack(np.unravel_index(free, regions.shape))
        best = np.full(free.size, np.inf, np.float32)
        choice = np.zeros(free.size, np.int32)
        for axis in range(regions.ndim):
            for offset in (-1, 1):
                beside = place.copy()
                beside[axis] = np.clip(beside[axis] + offset, 0, regions.shape[axis] - 1)
                candidate = regions[tuple(beside)]
                distance = np.linalg.norm(flat[:, free].T - means[candidate], axis=1)
                better = (candidate > 0) & (distance < best)
                best[better], choice[better] = distance[better], candidate[better]
        if not choice.any():
            return regions
        regions.ravel()[free] = choice
