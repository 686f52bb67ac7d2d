"""Tiles put side by side: the whole image's answer on the period grid, another one off it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.experiments.shift_equivariance.counting import random_network
from training.experiments.shift_equivariance.numbering import numbering_network
from training.experiments.shift_equivariance.stitching import (
    Array,
    Difference,
    Phases,
    in_one_pass,
    in_tiles,
)
from zoo_models.checkpoint import build_network
from zoo_models.geometry import Box, TileGeometry, ValidUNetAxis
from zoo_models.prediction.blocks import BlockGrid, read_mirrored
from zoo_models.prediction.engine import predict_embeddings

AXIS = ValidUNetAxis(3, 1, 2, 2)
SHAPE = (22, 29)


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("tile", [3, 4, 5, 6, 8, 10, 12])
def test_numbers_of_tiles_are_those_of_the_whole_exactly_when_tiles_are_multiples_of_the_period(
    tile: int, image: Array
) -> None:
    network = numbering_network(2, levels=2, factor=2)

    def read(box: Box) -> Array:
        return read_mirrored(image, box)

    whole = in_one_pass(network, AXIS, read, SHAPE)
    tiles = in_tiles(network, AXIS, read, SHAPE, tile)
    rows, columns = (np.arange(n) for n in SHAPE)
    fine = (rows // tile * tile % 4 == 0)[:, None] & (columns // tile * tile % 4 == 0)[None]
    assert np.array_equal((tiles == whole)[0], fine)
    assert fine.all() == (tile % 4 == 0)


@pytest.mark.parametrize("tile", [3, 4, 6, 7, 8])
def test_passes_of_all_phases_give_what_tiles_give(tile: int, image: Array) -> None:
    network = random_network(2, levels=2, factor=2, upsampling="learnt", seed=0)

    def read(box: Box) -> Array:
        return read_mirrored(image, box)

    phases = Phases(network, AXIS, read, SHAPE)
    literal = in_tiles(network, AXIS, read, SHAPE, tile)
    assert np.allclose(phases.in_tiles(tile), literal, rtol=0, atol=1e-5 * literal.std())
    assert len(phases.passes) <= (1 if tile % 4 == 0 else 4 if tile % 2 == 0 else 16)


def test_prediction_is_one_pass_of_some_phase_whatever_its_tiles(image: Array) -> None:
    torch.manual_seed(0)
    kwargs = {
        "ndim": 2, "in_channels": 1, "embedding_dim": 3, "width": 4, "max_width": 8, "levels": 2,
        "factor": 2, "kernel": 3, "convolutions": 1, "norm": "none", "upsampling": "learnt",
    }  # fmt: skip
    network = build_network("unet_valid", kwargs).eval()
    grid = BlockGrid.covering(SHAPE, TileGeometry.from_network([AXIS, AXIS]), tile_limit=1)
    assert len(grid) > 1
    predicted = predict_embeddings(network, image, grid, embedding_dim=3)
    phases = Phases(
        network.get_submodule("valid"), AXIS, lambda box: read_mirrored(image, box), SHAPE
    )
    begins = -AXIS.crop_after % AXIS.period  # the network answers so much before what is kept
    assert Difference.between(phases.one_pass((begins, begins)), predicted).largest < 1e-4
    assert Difference.between(phases.one_pass((begins, begins + 1)), predicted).largest > 1e-2


def test_a_difference_is_measured_in_deviations_of_each_channel() -> None:
    whole = np.stack([np.tile([-1.0, 1.0], (2, 2)), np.tile([-10.0, 10.0], (2, 2))])
    whole = whole.astype(np.float32)
    other = whole.copy()
    other[1, 0, 0] += 5
    assert Difference.between(other, whole) == Difference(largest=0.5, wrong=0.125)
    assert Difference.between(whole, whole) == Difference(0.0, 0.0)
