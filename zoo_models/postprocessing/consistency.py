"""Consistency clustering (SPOCO Algorithm 1): the instances on which network and teacher agree.

Where nothing was labelled, a network may tell apart what is no object. Objects that the teacher,
which saw other views in training, tells apart in the same way are kept ::

    network's embeddings E_f     |-- o --- o -- o --|          S, an object; o, anchors in it
    teacher's embeddings E_g     |-------- o ------------|     all within delta_v of E_g(o)
                                 median IoU over the anchors > 0.6: kept; else background

1. mean-shift on E_f with bandwidth delta_v: every pixel belongs to its nearest mode
2. of every object `anchors` pixels are drawn, with replacement; seed and object alone decide which
3. connected pieces of at least min_size pixels are the instances: what shared an embedding is split

This file travels inside packages and imports numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

FIRST_CLIMBERS = 256
MOST_STEPS = 300
STILL = 1e-3
"""A climb has ended when its step is at most this part of delta_v (both as in scikit-learn)."""

ROWS, COLUMNS = 64, 2**12
"""Places and pixels that are compared at once: 2 MiB, which a processor's cache holds."""

PART = 8
"""Pixels that are looked at first around the anchors of an object: as many times its own."""


class ConsistencyClustering:
    """Clusterer of two networks' embeddings. Distances are Euclidean, in embedding space.

    delta_v: bandwidth, and radius of the teacher's neighbourhoods; margin of the training.
    delta_d: margin of the training; half the distance of two instances.
    min_size: smaller instances are dropped; pixels.
    background: the network's mean embedding of it; pixels nearer than delta_d to it are 0. With
        neither this nor a foreground mask, the largest cluster is background.
    anchors, seed: pixels drawn from every object; agreement: its median IoU is larger.

    Raises ValueError: a margin that is not above 0, no anchor.
    """

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        *,
        min_size: int = 20,
        background: Sequence[float] = (),
        anchors: int = 10,
        agreement: float = 0.6,
        seed: int = 0,
    ) -> None:
        _check_margins(delta_v, delta_d)
        if anchors < 1:
            raise ValueError(f"anchors is {anchors}, expected at least 1: give more")
        self.delta_v = delta_v
        self.delta_d = delta_d
        self.min_size = min_size
        self.background = background
        self.anchors = anchors
        self.agreement = agreement
        self.seed = seed

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (2 D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        The first D channels are the network's, the last D the teacher's. With `foreground`, a mask
        of the labels' shape, only its pixels are labelled, or are in a neighbourhood.

        Raises ValueError: an odd number of channels, embeddings that are not finite, a mask or a
        background that does not fit.
        """
        dim, odd = divmod(len(embeddings), 2)
        if odd or dim == 0:
            raise ValueError(
                f"{len(embeddings)} channels found, expected the network's and as many of its "
                "teacher: export the package with --teacher"
            )
        _inside(embeddings, foreground, (), self.delta_d)  # the teacher's are finite, too
        inside = _inside(embeddings[:dim], foreground, self.background, self.delta_d)
        image = np.zeros(inside.shape, np.int32)
        if not inside.any():
            return image
        pixels = embeddings[:dim, inside].T.astype(np.float64)
        modes = _modes(pixels, self.delta_v, self.min_size)
        if len(modes) == 0:
            return image
        _, cluster = np.unique(cKDTree(modes).query(pixels)[1], return_inverse=True)
        kept = self._agreed(cluster, embeddings[dim:, inside].T.astype(np.float64))
        if foreground is None and len(self.background) == 0:
            kept[np.bincount(cluster).argmax()] = False
        image[inside] = np.where(kept[cluster], cluster + 1, 0)
        return _pieces(image, self.min_size)

    def _agreed(self, cluster: NDArray[np.intp], teacher: Doubles) -> Mask:
        """Step 2: whether the teacher (N, D) agrees with each of the clusters 0..K-1 (N,), (K,)."""
        order, ends = np.argsort(cluster, kind="stable"), np.bincount(cluster).cumsum()
        tree, objects = cKDTree(teacher), np.split(order, ends[:-1])
        return np.array([self._agrees(teacher, tree, members) for members in objects])

    def _agrees(self, teacher: Doubles, tree: cKDTree, members: NDArray[np.intp]) -> bool:
        """Whether the median IoU of an object, pixels `members`, is large enough.

        IoUs only fall with each pixel found near, so looking at some often tells already.
        """
        size, radius = members.size, self.delta_v
        draw = np.random.default_rng((self.seed, int(members[0])))
        places = teacher[members[draw.integers(size, size=self.anchors)]]
        common = _count(places, teacher[members], radius)

        def enough(near: NDArray[np.intp]) -> bool:
            iou = common / (size + np.maximum(near - common, 0))
            return bool(np.median(iou) > self.agreement)

        part = teacher[:: max(1, len(teacher) // (PART * size))]
        return enough(_count(places, part, radius)) and enough(
            tree.query_ball_point(places, radius, return_length=True)
        )


def _count(places: Doubles, pixels: Doubles, radius: float) -> NDArray[np.intp]:
    """How many of pixels (N, D) are within `radius` of each of places (M, D), (M,)."""
    counts = np.zeros(len(places), np.intp)
    for start in range(0, len(pixels), COLUMNS):
        counts += (_squared(places, pixels[start : start + COLUMNS]) <= radius**2).sum(axis=1)
    return counts


@dataclass(frozen=True)
class _Cloud:
    """Pixels (N, D), sorted by how far along `direction` (D,) they lie, and how far (N,)."""

    pixels: Doubles
    direction: Doubles
    along: Doubles

    @classmethod
    def of(cls, pixels: Doubles) -> _Cloud:
        """The direction is the first principal component."""
        centred = pixels - pixels.mean(axis=0)
        direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        along = pixels @ direction
        order = np.argsort(along, kind="stable")
        return cls(pixels[order], direction, along[order])

    def near(
        self, places: Doubles, radius: float
    ) -> Iterator[tuple[NDArray[np.intp], slice, Mask]]:
        """Rows of `places` (K, D), a slice of pixels, and which of these are within `radius`."""
        along = places @ self.direction
        order = np.argsort(along, kind="stable")
        margin = radius * (1 + STILL)  # above any rounding
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            ends = along[rows[0]] - margin, along[rows[-1]] + margin
            low, high = np.searchsorted(self.along, ends)
            for start in range(low, high, COLUMNS):
                columns = slice(start, min(start + COLUMNS, high))
                yield rows, columns, _squared(places[rows], self.pixels[columns]) <= radius**2


def _squared(places: Doubles, pixels: Doubles) -> Doubles:
    """Squared distances (K, N), from the binomial theorem around the first place."""
    places, pixels = places - places[0], pixels - places[0]
    squared = places @ pixels.T
    squared *= -2
    squared += np.einsum("nd,nd->n", pixels, pixels)
    squared += np.einsum("kd,kd->k", places, places)[:, None]
    return squared


def _modes(pixels: Doubles, radius: float, min_size: int) -> Doubles:
    """Steps 1 and 2: modes (M, D), the one with the most pixels within `radius` first."""
    cloud = _Cloud.of(pixels)
    waiting = np.ones(len(pixels), bool)
    modes, weights = np.zeros((0, pixels.shape[1])), np.zeros(0, np.intp)
    climbers = FIRST_CLIMBERS
    while waiting.any():
        left = np.flatnonzero(waiting)
        chosen = left[:: math.ceil(len(left) / climbers)]
        waiting[chosen] = False
        ends, ends_weights = _climb(cloud, cloud.pixels[chosen], modes, radius)
        found = ends_weights >= max(min_size, 1)
        new, new_weights = _strongest(ends[found], ends_weights[found], radius)
        for _, columns, near in cloud.near(new, radius):
            waiting[columns] &= ~near.any(axis=0)
        modes, weights = np.concatenate([modes, new]), np.concatenate([weights, new_weights])
        climbers *= 2
    return _strongest(modes, weights, radius)[0]


def _climb(
    cloud: _Cloud, places: Doubles, modes: Doubles, radius: float
) -> tuple[Doubles, NDArray[np.intp]]:
    """Where climbs from places (K, D) end, (K, D), and how many pixels are near there, (K,).

    The number is 0 where the climb came to one of the modes (M, D) that are known.
    """
    places, weights = places.copy(), np.zeros(len(places), np.intp)
    moving, known = np.arange(len(places)), cKDTree(modes)
    for _ in range(MOST_STEPS):
        sums, counts = np.zeros((len(moving), places.shape[1])), np.zeros(len(moving), np.intp)
        for rows, columns, near in cloud.near(places[moving], radius):
            sums[rows] += near.astype(np.float64) @ cloud.pixels[columns]
            counts[rows] += np.count_nonzero(near, axis=1)
        means = sums / counts[:, None]  # the mean of what is within a radius is near some of it
        steps = np.linalg.norm(means - places[moving], axis=1)
        arrived = known.query(means, distance_upper_bound=radius)[0] <= radius
        places[moving], weights[moving] = means, np.where(arrived, 0, counts)
        moving = moving[(steps > STILL * radius) & ~arrived]
        if moving.size == 0:
            break
    return places, weights


def _strongest(
    ends: Doubles, weights: NDArray[np.intp], radius: float
) -> tuple[Doubles, NDArray[np.intp]]:
    """The heaviest of those within `radius` of each other, the heaviest first, and the weights."""
    order = np.lexsort((*ends.T[::-1], weights))[::-1]
    ends, kept = ends[order], []
    free, tree = np.ones(len(ends), bool), cKDTree(ends)
    for index, end in enumerate(ends):
        if free[index]:
            kept.append(index)
            free[tree.query_ball_point(end, radius)] = False
    return ends[kept], weights[order][kept]


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
