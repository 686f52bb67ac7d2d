"""The shipped model does what its card says, and nobody can see its tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo_models.catalog import CatalogModel, find_model
from zoo_models.checkpoint import Checkpoint
from zoo_models.metrics import score
from zoo_models.postprocessing import build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import predict_embeddings
from zoo_models.prediction.images import read_image, read_labels


@pytest.fixture(scope="module")
def model() -> CatalogModel:
    return find_model("nuclei-fluo-2d")


@pytest.fixture(scope="module")
def checkpoint(model: CatalogModel) -> Checkpoint:
    return Checkpoint.load(model.checkpoint)


def example(model: CatalogModel, checkpoint: Checkpoint) -> np.ndarray:
    image = read_image(model.folder / "example" / "image.tif").data
    return checkpoint.normalisation.apply(image)


def embed(checkpoint: Checkpoint, image: np.ndarray, tile_limit: int) -> np.ndarray:
    grid = BlockGrid.covering(image.shape[1:], checkpoint.geometry, tile_limit=tile_limit)
    return predict_embeddings(
        checkpoint.network(), image, grid, embedding_dim=checkpoint.embedding_dim
    )


def test_it_finds_the_nuclei_of_its_example(model: CatalogModel, checkpoint: Checkpoint) -> None:
    image = example(model, checkpoint)[:, :256, :320]
    truth = read_labels(model.folder / "example" / "labels.tif")[:256, :320]
    labels = build_clusterer(checkpoint.clusterer)(embed(checkpoint, image, 512))
    assert score(labels, truth).ap50 > 0.75


@pytest.mark.parametrize("shape", [(203, 219), (61, 250)])
def test_tiles_cannot_be_seen(
    model: CatalogModel, checkpoint: Checkpoint, shape: tuple[int, int]
) -> None:
    image = example(model, checkpoint)[:, 100 : 100 + shape[0], 37 : 37 + shape[1]]
    whole, tiled = (embed(checkpoint, image, limit) for limit in (1024, 1))
    assert np.abs(whole - tiled).max() <= 1e-4 * whole.std()


def test_the_image_may_be_brighter_or_darker(model: CatalogModel, checkpoint: Checkpoint) -> None:
    """A gain cancels in the local normalisation, but for its floor at one grey value."""
    image = example(model, checkpoint)[:, :176, :176]
    clusterer = build_clusterer(checkpoint.clusterer)
    labels = [clusterer(embed(checkpoint, image * gain, 512)) for gain in (1.0, 16.0)]
    assert score(labels[1], labels[0]).ap50 > 0.8


def test_its_weights_are_small_and_finite(model: CatalogModel, checkpoint: Checkpoint) -> None:
    assert model.checkpoint.stat().st_size < 10e6
    assert all(torch.isfinite(w).all() for w in checkpoint.weights.values())
