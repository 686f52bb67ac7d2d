"""One graph from image to labels gives what `predict` gives, for images of any size."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packager.graphs.instances import InstancesGraph, clusterer_graph, instances_graph
from tests.packager.conftest import make_checkpoint
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ExportError
from zoo_models.postprocessing import build_clusterer
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings
from zoo_models.prediction.images import read_image

Image = np.ndarray[Any, np.dtype[np.float32]]


def embeddings_by_predict(checkpoint: Checkpoint, image: Image, tile_limit: int) -> Image:
    """What `predict_instances` clusters, for an image c(z)yx that is normalised already."""
    grid = BlockGrid.covering(image.shape[1:], checkpoint.geometry, tile_limit=tile_limit)
    dim = checkpoint.embedding_dim
    return predict_embeddings(checkpoint.network(), image, grid, embedding_dim=dim)


def with_small_tiles(checkpoint: Checkpoint) -> InstancesGraph:
    """The graph with tiles as small as the network allows."""
    whole = instances_graph(checkpoint)
    return InstancesGraph(
        whole.network,
        whole.clusterer,
        checkpoint.geometry,
        embedding_dim=checkpoint.embedding_dim,
        tile_limit=1,
    ).eval()


def saved_and_loaded(graph: torch.nn.Module) -> torch.jit.ScriptModule:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(graph), file)
    file.seek(0)
    loaded: torch.jit.ScriptModule = torch.jit.load(file)
    return loaded


def noise(*shape: int) -> Image:
    return np.random.default_rng(0).random(shape, np.float32)


def test_a_catalog_model_numbers_every_pixel_of_its_example_as_predict_does(
    repository: Path,
) -> None:
    folder = repository / "zoo_models/catalog/nuclei-fluo-2d"
    checkpoint = Checkpoint.load(folder / "checkpoint.safetensors")
    image = read_image(folder / "example/image.tif").data[:, :200, :237]
    image = checkpoint.normalisation.apply(image)
    embeddings = embeddings_by_predict(checkpoint, image, TILE_LIMIT[2])
    expected = build_clusterer(checkpoint.clusterer)(embeddings)
    assert expected.max() > 15
    found = saved_and_loaded(instances_graph(checkpoint))(torch.from_numpy(image)[None])
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[0, 0], expected)
    clusterer = saved_and_loaded(clusterer_graph(checkpoint))
    np.testing.assert_array_equal(clusterer(torch.from_numpy(embeddings)[None])[0, 0], expected)


@pytest.mark.parametrize(
    ("kwargs", "shape"),
    [
        ({}, (41, 137)),
        ({}, (1, 1)),
        ({}, (3, 200)),
        ({"in_channels": 2, "factor": [1, 2], "local_radius": 3}, (50, 61)),
        ({"ndim": 3, "levels": 1, "width": 2}, (5, 31, 42)),
        ({"ndim": 3, "levels": 1, "width": 2}, (1, 1, 1)),
    ],
)
def test_images_of_any_size_are_embedded_as_predict_does_tile_by_tile(
    kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    checkpoint = make_checkpoint(**kwargs)
    image = noise(checkpoint.in_channels, *shape)
    graph = saved_and_loaded(with_small_tiles(checkpoint))
    expected = embeddings_by_predict(checkpoint, image, 1)
    for _ in range(2):
        found = graph.embed(torch.from_numpy(image)[None])
        np.testing.assert_allclose(found[0], expected, atol=1e-5 * np.abs(expected).max())
    with torch.jit.optimized_execution(False):  # this only saves time
        labels = graph(torch.from_numpy(image)[None])
    assert labels.shape == (1, 1, *shape)
    np.testing.assert_array_equal(
        labels[0, 0], build_clusterer(checkpoint.clusterer)(found[0].numpy())
    )


def test_the_size_of_tiles_changes_nothing() -> None:
    checkpoint = make_checkpoint()
    image = torch.from_numpy(noise(1, 1, 150, 77))
    whole, tiled = instances_graph(checkpoint), with_small_tiles(checkpoint)
    assert whole.kept[0] > 150 > tiled.kept[0]
    embeddings = whole.embed(image)
    difference = (tiled.embed(image) - embeddings).abs().max()
    assert difference < 1e-5 * embeddings.abs().max()


def test_images_of_a_batch_are_numbered_one_by_one() -> None:
    graph = instances_graph(make_checkpoint())
    batch = torch.from_numpy(noise(2, 1, 30, 40))
    labels = graph(batch)
    assert labels.shape == (2, 1, 30, 40)
    for image, found in zip(batch, labels, strict=True):
        torch.testing.assert_close(found[None], graph(image[None]), rtol=0, atol=0)


def test_a_clusterer_without_a_graph_is_refused_with_those_that_have_one() -> None:
    checkpoint = dataclasses.replace(make_checkpoint(), clusterer=ClustererSettings("magic"))
    for make in (instances_graph, clusterer_graph):
        with pytest.raises(ExportError, match=r"'magic'.*basin_merging"):
            make(checkpoint)
