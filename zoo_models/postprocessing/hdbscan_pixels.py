"""HDBSCAN on pixel embeddings (the library `hdbscan`), noise left out or flooded.

1. the density-based clusters of all embeddings; what is in none of them is noise, and 0. Pixels of
   exactly the same embedding belong together: a distance of 0 is an infinite density to the
   library, which then splits at will, as where the image is blank
2. with `fill`, for dense tissue, noise is flooded from the clusters. Of all paths through noise to
   a cluster a pixel takes the one whose largest step in embedding is smallest (a watershed cut)::

       A A . . . B B        embeddings differ most here: A A A A|B B B
                                                               ^
   noise from which no path of direct neighbours leads to a cluster stays 0
3. connected pieces of at least min_size pixels are the instances

One thread, so that the result is the same everywhere. The library knows no single cluster: where
embeddings vary around one place only, all is noise. This file travels inside packages and imports
numpy, scipy and hdbscan only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import hdbscan
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

NOISE = -1


class HdbscanPixels:
    """Clusterer of pixel embeddings by HDBSCAN. Distances are Euclidean, in embedding space.

    delta_v, delta_d: margins of the training; delta_d is used around the background only.
    min_cluster: smallest cluster, pixels; 200 for CVPPP, 550 for ovules, 600 for EM (SPOCO A.4).
    min_size: smaller instances, connected pieces of clusters, are dropped; pixels.
    background: mean embedding of the background; pixels nearer than delta_d to it are 0. With
        neither this nor a foreground mask, the largest cluster is background.
    fill: flood the noise from the clusters, that of the background included.

    Raises ValueError: a margin that is not above 0, min_cluster below 2.
    """

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        *,
        min_cluster: int = 200,
        min_size: int = 20,
        background: Sequence[float] = (),
        fill: bool = False,
    ) -> None:
        _check_margins(delta_v, delta_d)
        if min_cluster < 2:
            raise ValueError(f"min_cluster is {min_cluster}, expected 2 pixels or more")
        self.delta_v = delta_v
        self.delta_d = delta_d
        self.min_cluster = min_cluster
        self.min_size = min_size
        self.background = background
        self.fill = fill

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background.

        With `foreground`, a mask of the labels' shape, only its pixels are labelled.

        Raises ValueError: embeddings that are not finite, a mask or a background that does not fit.
        """
        inside = _inside(embeddings, foreground, self.background, self.delta_d)
        image = np.zeros(inside.shape, np.int32)
        if (
            np.count_nonzero(inside) <= self.min_cluster
        ):  # two clusters, or one and noise, need more
            return image
        method = hdbscan.HDBSCAN(min_cluster_size=self.min_cluster, core_dist_n_jobs=1)
        pixels = embeddings[:, inside].T.astype(np.float64)
        cluster = _equals_together(pixels, method.fit_predict(pixels))
        if cluster.max() == NOISE:
            return image
        largest = np.bincount(cluster[cluster != NOISE]).argmax() + 1
        image[inside] = cluster + 1
        if self.fill:
            image = _flooded(embeddings, image, inside)
        if foreground is None and len(self.background) == 0:
            image[image == largest] = 0
        return _pieces(image, self.min_size)


def _equals_together(pixels: NDArray[np.float64], cluster: NDArray[np.intp]) -> NDArray[np.intp]:
    """Clusters (N,) 0..n-1 or NOISE, joined where they share an embedding of the pixels (N, D)."""
    number = cluster.max() + 1
    _, same = np.unique(pixels, axis=0, return_inverse=True)
    in_one = cluster != NOISE
    edges = np.ones(np.count_nonzero(in_one), bool), (cluster[in_one], number + same[in_one])
    graph = coo_array(edges, (number + same.max() + 1,) * 2)
    component = connected_components(graph, directed=False)[1]
    joined: NDArray[np.intp] = component[number + same].astype(np.intp)
    joined[~np.isin(joined, component[:number])] = NOISE
    return joined


def _flooded(embeddings: Floats, clusters: Labels, inside: Mask) -> Labels:
    """Clusters 1..n, 0 is noise where `inside`: noise takes the cluster it is flooded from.

    A minimum spanning forest (Cousty et al. 2009) of the direct neighbours of which one is noise at
    least. Every pixel of a cluster is tied to one node outside the image by the cheapest edges of
    all; when these are cut, each tree holds one such pixel. Equal steps count in a fixed order.
    """
    index = np.arange(clusters.size, dtype=np.int32).reshape(clusters.shape)
    ends, steps = [], []
    for axis in range(clusters.ndim):
        cluster, place = np.moveaxis(clusters, axis, 0), np.moveaxis(index, axis, 0)
        within, values = np.moveaxis(inside, axis, 0), np.moveaxis(embeddings, axis + 1, 1)
        flows = within[:-1] & within[1:] & ((cluster[:-1] == 0) | (cluster[1:] == 0))
        ends.append(np.stack([place[:-1][flows], place[1:][flows]]))
        steps.append(np.linalg.norm(values[:, 1:][:, flows] - values[:, :-1][:, flows], axis=0))
    first, second = np.concatenate(ends, axis=1)
    rank = np.empty(first.size)
    rank[np.argsort(np.concatenate(steps), kind="stable")] = np.arange(2, first.size + 2)
    sources, outside = np.flatnonzero(clusters), clusters.size
    rows = np.concatenate([first, sources])
    columns = np.concatenate([second, np.full(sources.size, outside)])
    weights = np.concatenate([rank, np.ones(sources.size)])
    tree = minimum_spanning_tree(coo_array((weights, (rows, columns)), (outside + 1,) * 2))
    tree = tree.tocoo()
    kept = tree.data > 1
    forest = coo_array((tree.data[kept], (tree.row[kept], tree.col[kept])), tree.shape)
    number, component = connected_components(forest, directed=False)
    label = np.zeros(number, np.int32)
    label[component[sources]] = clusters.ravel()[sources]
    flooded: Labels = label[component[:-1]].reshape(clusters.shape)
    return flooded


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
