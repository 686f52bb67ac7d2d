"""The test tensors of a package: a piece of a real image, and the graph's answer to it.

The piece is larger than the smallest tile by a few steps, and not square, so that a consumer that
tiles it with a wrong halo, a wrong grid or swapped axes gets visibly different numbers. Among all
pieces of the sample image on the period grid the one is taken whose emptiest part is the least
empty: every pixel of the answer should depend on where it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from packager.consumers.placement import DeclaredAxis
from packager.graphs.beside_teacher import beside_teacher
from packager.kinds import Product
from zoo_models.checkpoint import Checkpoint
from zoo_models.geometry import Box
from zoo_models.prediction.blocks import BlockGrid, read_mirrored
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings
from zoo_models.prediction.images import expect_image, read_image

TENSORS = {
    "test_input": "test_input.npy",
    "test_output": "test_output.npy",
    "sample_input": "sample_input.tif",
    "sample_output": "sample_output.tif",
}
"""Names of the files in a package."""

EXTRA_STEPS = {"yx": (3, 5), "zyx": (0, 1, 2)}
"""Steps added to the smallest tile, per axis: all different, few in 3D where pixels are many."""

ANY_SIZE = 112

CELLS = 4
"""Parts per axis into which a candidate is cut when its emptiest part is looked for."""


@dataclass(frozen=True)
class TensorPair:
    """One run of a graph, float32: (1, C, [Z,] Y, X) in, (1, D, [Z,] Y, X) out.

    taken: as the consumer gets it, before the normalisation.
    """

    taken: NDArray[np.float32]
    given: NDArray[np.float32]


def read_sample(path: Path, checkpoint: Checkpoint) -> NDArray[np.float32]:
    """The sample image as c(z)yx float32, raw values.

    Raises:
        ImageError: unreadable, not finite, or its axes or channels do not fit the network.
    """
    image = read_image(path)
    expect_image(image, axes=checkpoint.axes, channels=checkpoint.in_channels)
    return image.data


def tensor_shape(axes: Sequence[DeclaredAxis]) -> tuple[int, ...]:
    """Space shape of the test tensors: the smallest tile and a few steps more.

    Where any size will do, as large as where the smallest tile is 112.
    """
    extras = EXTRA_STEPS["zyx"[-len(axes) :]]
    return tuple(
        axis.minimum + extra * axis.step if axis.minimum > 1 else ANY_SIZE + 16 * extra
        for axis, extra in zip(axes, extras, strict=True)
    )


def richest_crop(
    image: NDArray[np.float32], shape: Sequence[int], grid: Sequence[int]
) -> NDArray[np.float32]:
    """The piece of `shape` whose emptiest part has the highest contrast.

    Candidates start on multiples of `grid`. An image c(z)yx smaller than `shape` is mirrored to it.
    """
    reach = tuple(max(0, n - s) for n, s in zip(image.shape[1:], shape, strict=True))
    starts = itertools.product(*(range(0, r + 1, 2 * g) for r, g in zip(reach, grid, strict=True)))
    best, best_contrast = image, -1.0
    for start in starts:
        box = Box(start, tuple(a + s for a, s in zip(start, shape, strict=True)))
        crop = read_mirrored(image, box)
        contrast = _least_contrast(crop)
        if contrast > best_contrast:
            best, best_contrast = crop, contrast
    return best


def _least_contrast(crop: NDArray[np.float32]) -> float:
    """Smallest standard deviation among CELLS parts per axis, averaged over the channels."""
    parts = [crop]
    for axis in range(1, crop.ndim):
        parts = [cell for part in parts for cell in np.array_split(part, CELLS, axis=axis)]
    return min(float(part.std(axis=tuple(range(1, crop.ndim))).mean()) for part in parts)


def make_pair(checkpoint: Checkpoint, product: Product, image: NDArray[np.float32]) -> TensorPair:
    """The test tensors of a product for a sample image c(z)yx.

    What takes embeddings gets those of the sample image, without a margin.
    """
    crop = richest_crop(image, tensor_shape(product.axes), checkpoint.geometry.period)
    normalised = checkpoint.normalisation.apply(crop)
    if not product.takes_image:
        crop = normalised = embed(checkpoint, normalised)
    with torch.inference_mode():
        given = product.graph(torch.from_numpy(np.ascontiguousarray(normalised[None]))).numpy()
    return TensorPair(np.ascontiguousarray(crop[None]), given)


def embed(
    checkpoint: Checkpoint, image: NDArray[np.float32], *, with_teacher: bool = False
) -> NDArray[np.float32]:
    """Embeddings D(z)yx of a normalised image c(z)yx, tiled as `spoco-zoo predict` does.

    With the teacher 2 D channels: the network's, then the teacher's.
    """
    geometry = checkpoint.geometry
    limit = TILE_LIMIT[geometry.ndim]
    grid = BlockGrid.covering(image.shape[1:], geometry, tile_limit=limit)
    network = beside_teacher(checkpoint) if with_teacher else checkpoint.network()
    dim = checkpoint.embedding_dim * (2 if with_teacher else 1)
    return predict_embeddings(network, image, grid, embedding_dim=dim)


def write_npy(path: Path, tensor: NDArray[np.float32]) -> None:
    np.save(path, tensor, allow_pickle=False)


def write_tiff(path: Path, tensor: NDArray[np.float32]) -> None:
    """A sample tensor as a plain TIFF: one page per channel and plane, all axes kept."""
    tifffile.imwrite(path, tensor, photometric="minisblack", compression="zlib", metadata=None)
