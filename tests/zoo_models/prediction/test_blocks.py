"""Blocks partition the image on the period's grid, and tiled prediction equals one whole pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_models.architectures.unet_valid import SameSizeUNet
from zoo_models.errors import GeometryError
from zoo_models.geometry import Box, TileGeometry, ValidUNetAxis
from zoo_models.prediction.blocks import BlockGrid, read_mirrored
from zoo_models.prediction.engine import predict_embeddings


def geometry_2d(levels: int = 2) -> TileGeometry:
    return TileGeometry.from_network([ValidUNetAxis(3, 2, levels, 2)] * 2)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    limit=st.integers(1, 400),
    levels=st.integers(0, 3),
)
def test_write_boxes_partition_the_image_and_start_on_the_grid(
    shape: tuple[int, int], limit: int, levels: int
) -> None:
    grid = BlockGrid.covering(shape, geometry_2d(levels), tile_limit=limit)
    written = np.zeros(shape, int)
    blocks = list(grid)
    for block in blocks:
        written[block.write.slices] += 1
        assert all(a % p == 0 for a, p in zip(block.write.start, grid.geometry.period, strict=True))
        assert block.keep.shape == block.write.shape
        inside = Box.of_shape(block.read.shape).grow([-h for h in grid.geometry.halo])
        assert inside.contains(block.keep)
    assert (written == 1).all()
    assert len(blocks) == len(grid)


def test_a_tile_off_the_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match="off the grid"):
        BlockGrid((100, 100), (50, 48), geometry_2d())


@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    start=st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_reading_beyond_the_border_mirrors_as_numpy_pads(
    shape: tuple[int, int], start: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    padded = np.pad(image[0], 45, mode="symmetric")
    box = Box(start, (start[0] + size[0], start[1] + size[1]))
    np.testing.assert_array_equal(read_mirrored(image, box)[0], padded[box.shift([45, 45]).slices])


def position_coded(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Every pixel tells where it is: waves of co-prime lengths, and noise."""
    grid = np.indices(shape).astype(np.float32)
    waves = sum(np.sin(g * (0.37 + 0.11 * i)) for i, g in enumerate(grid))
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(waves + noise, np.float32)[None]


@pytest.mark.parametrize(
    ("shape", "limit", "kwargs"),
    [
        ((203, 219), 88, {"levels": 2}),
        ((203, 219), 1, {"levels": 2, "local_radius": 5}),
        ((97, 300), 128, {"levels": 3, "norm": "none"}),
        ((17, 9), 1, {"levels": 2, "upsampling": "nearest"}),
        ((31, 45, 38), 1, {"ndim": 3, "levels": 1, "factor": [1, 2, 2]}),
        ((64, 150), 1, {"levels": 1, "factor": 3, "convolutions": 1}),
    ],
)
def test_tiled_prediction_equals_one_whole_pass(
    shape: tuple[int, ...], limit: int, kwargs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = SameSizeUNet(embedding_dim=3, width=4, max_width=8, **kwargs).eval()
    valid = network.valid
    networks = [
        ValidUNetAxis(3, int(kwargs.get("convolutions", 2)), int(kwargs["levels"]), f, r)
        for f, r in zip(
            np.broadcast_to(kwargs.get("factor", 2), len(shape)).tolist(),
            np.broadcast_to(kwargs.get("local_radius", 0), len(shape)).tolist(),
            strict=True,
        )
    ]
    geometry = TileGeometry.from_network(networks)
    image = position_coded(shape)
    grid = BlockGrid.covering(shape, geometry, tile_limit=limit)
    assert len(grid) > 1 or max(shape) < 20
    tiled = predict_embeddings(network, image, grid, embedding_dim=3)
    # one pass of the valid network itself, around the whole image: no tiling code is involved
    before = [n.crop_before for n in networks]
    read = [h - a for h, a in zip(geometry.halo, before, strict=True)]
    padded = geometry.padded(shape)
    margin = [(r, r + p - n) for r, p, n in zip(read, padded, shape, strict=True)]
    whole_input = np.pad(image, [(0, 0), *margin], mode="symmetric")
    with torch.no_grad():
        whole = valid(torch.from_numpy(whole_input)[None])[0].numpy()
    offset = [n.crop_after for n in networks]
    inner = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
    assert np.abs(tiled - whole[:, *inner]).max() <= 1e-4 * whole.std()
