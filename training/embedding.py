"""The embeddings of whole annotated images, under a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.datasets import Sample
from zoo_models.checkpoint import Checkpoint
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings


def embeddings_of(
    checkpoint: Checkpoint, samples: Sequence[Sample]
) -> Iterator[NDArray[np.float32]]:
    """D(z)yx of each sample in turn; only one is held."""
    network = checkpoint.network()
    limit = TILE_LIMIT[len(checkpoint.axes)]
    for sample in samples:
        grid = BlockGrid.covering(sample.labels.shape, checkpoint.geometry, tile_limit=limit)
        yield predict_embeddings(
            network, sample.image, grid, embedding_dim=checkpoint.embedding_dim
        )
