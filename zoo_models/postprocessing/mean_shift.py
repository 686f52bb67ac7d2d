"""Mean-shift with a flat kernel of radius delta_v: every pixel climbs to the mean of what is near.

From the embedding of a pixel, move to the mean of all embeddings within delta_v, again and again,
until it moves by no more than a thousandth of delta_v: that place is a mode ::

    embeddings      . .:::. .        .  ..::. .
    climb           o-->M                 M<-o        M: as many as possible are within delta_v

1. climb from a few pixels, then from twice as many of those that are left, and so on, until none is
   left. A pixel, or a climb on its way, within delta_v of a mode found before belongs to it, and
   goes no further. No chance: every pixel is asked
2. modes with fewer than min_size pixels within delta_v are noise. Of modes within delta_v of each
   other the one with the most pixels stays
3. every pixel belongs to its nearest mode (as in scikit-learn's MeanShift)
4. with `merge`, clusters whose means are nearer than delta_d become one (SPOCO's variant for
   Cityscapes)
5. connected pieces of at least min_size pixels are the instances

Means are taken over all pixels in double precision. Only pixels within delta_v along the direction
in which embeddings vary most are compared. This file travels inside packages and imports numpy and
scipy only.
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


class MeanShift:
    """Clusterer of pixel embeddings by mean-shift. Distances are Euclidean, in embedding space.

    delta_v: bandwidth, the radius of the flat kernel; margin of the training.
    delta_d: margin of the training; half the distance of two instances.
    min_size: smaller instances are dropped; pixels.
    background: mean embedding of the background; pixels nearer than delta_d to it are 0. With
        neither this nor a foreground mask, the largest cluster is background.
    merge: join clusters whose means are nearer than delta_d, directly or over others.

    Raises ValueError: a margin that is not above 0.
    """

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        *,
        min_size: int = 20,
        background: Sequence[float] = (),
        merge: bool = False,
    ) -> None:
        _check_margins(delta_v, delta_d)
        self.delta_v = delta_v
        self.delta_d = delta_d
        self.min_size = min_size
        self.background = background
        self.merge = merge

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.

        Raises ValueError: embeddings that are not finite, a mask or a background that does not fit.
        """
        inside = _inside(embeddings, foreground, self.background, self.delta_d)
        image = np.zeros(inside.shape, np.int32)
        if not inside.any():
            return image
        pixels = embeddings[:, inside].T.astype(np.float64)
        modes = _modes(pixels, self.delta_v, self.min_size)
        if len(modes) == 0:
            return image
        _, cluster = cKDTree(modes).query(pixels)
        if self.merge:
            cluster = _merged(pixels, cluster, self.delta_d)
        if foreground is None and len(self.background) == 0:
            cluster = np.where(cluster == np.bincount(cluster).argmax(), -1, cluster)
        image[inside] = cluster + 1
        return _pieces(image, self.min_size)


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


def _merged(pixels: Doubles, cluster: NDArray[np.intp], limit: float) -> NDArray[np.int32]:
    """Step 4: cluster (N,) -> one number for clusters with means nearer than `limit`, (N,)."""
    sizes = np.maximum(np.bincount(cluster), 1)  # a mode may be the nearest one of no pixel
    sums = np.stack([np.bincount(cluster, channel) for channel in pixels.T], axis=1)
    means = sums / sizes[:, None]
    pairs = cKDTree(means).query_pairs(limit, output_type="ndarray")
    first, second = pairs[np.linalg.norm(means[pairs[:, 0]] - means[pairs[:, 1]], axis=1) < limit].T
    graph = coo_array((np.ones(first.size, bool), (first, second)), (len(means),) * 2)
    number: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return number[cluster]


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
