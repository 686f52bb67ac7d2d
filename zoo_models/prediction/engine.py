"""Run a network over an image of any size, tile by tile, into one array of embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.prediction.blocks import BlockGrid, read_mirrored

Network = Callable[[torch.Tensor], torch.Tensor]
"""(1, C, [Z,] Y, X) float32 -> (1, D, [Z,] Y, X) float32, of the input's size."""

TILE_LIMIT = {2: 1024, 3: 160}
"""Largest tile edge by number of space axes, unless the caller knows better."""


def predict_embeddings(
    network: Network,
    image: NDArray[np.float32],
    grid: BlockGrid,
    *,
    embedding_dim: int,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Embeddings D(z)yx of an image c(z)yx whose values are already normalised.

    Equal to one pass over the whole (mirrored) image, whatever the tile size: the grid's tiles keep
    multiples of the period, on the period's grid. `progress` gets (blocks done, blocks).
    """
    embeddings = np.empty((embedding_dim, *grid.shape), np.float32)
    with torch.inference_mode():
        for done, block in enumerate(grid, start=1):
            tile = torch.from_numpy(read_mirrored(image, block.read)[None]).to(device)
            output = network(tile)[0].float().cpu().numpy()
            embeddings[:, *block.write.slices] = output[:, *block.keep.slices]
            if progress is not None:
                progress(done, len(grid))
    return embeddings
