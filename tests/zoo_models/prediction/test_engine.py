"""The embeddings of a box are those of the whole image, whatever the tiles; it is read once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.packager.conftest import make_checkpoint
from zoo_models.errors import GeometryError
from zoo_models.geometry import Box, TileGeometry
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import embeddings_of, predict_embeddings, tiles_of

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2D": ((150, 131), {"levels": 2, "width": 2}),
    "2D, local normalisation": ((90, 117), {"levels": 1, "width": 2, "local_radius": 5}),
    "3D, flat voxels": ((13, 45, 38), {"ndim": 3, "levels": 1, "factor": [1, 2, 2], "width": 2}),
    "smaller than the halo": ((9, 17), {"levels": 2, "width": 2}),
}


@cache
def known(name: str) -> tuple[torch.nn.Module, TileGeometry, NDArray[np.float32], Any]:
    """Network, its tiling, an image in which no two places look alike, all its embeddings."""
    shape, kwargs = NETWORKS[name]
    checkpoint = make_checkpoint(**kwargs)
    network = checkpoint.network()
    noise = np.random.default_rng(7).normal(size=shape)
    ramp = sum(np.sin(g * (0.37 + 0.11 * i)) for i, g in enumerate(np.indices(shape)))
    image = np.asarray(noise + ramp, np.float32)[None]
    grid = BlockGrid.covering(shape, checkpoint.geometry, tile_limit=1000)
    assert len(grid) == 1  # one pass
    whole = predict_embeddings(network, image, grid, embedding_dim=3)
    return network, checkpoint.geometry, image, whole


def as_engine(network: torch.nn.Module) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(tiles)).numpy()

    return run


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    """A box of at least one pixel within an image of `shape`."""
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    return Box(start, tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_embeddings_of_a_box_are_those_of_the_whole_image(
    name: str, data: st.DataObject
) -> None:
    network, geometry, image, whole = known(name)
    box = data.draw(boxes(image.shape[1:]))
    tile = tuple(m + data.draw(st.integers(0, 70)) for m in geometry.minimum)
    reads = []

    def read(part: Box) -> NDArray[np.float32]:
        assert Box.of_shape(image.shape[1:]).contains(part)
        reads.append(part)
        return image[:, *part.slices]

    found = embeddings_of(
        lambda: nullcontext(as_engine(network)),
        read,
        box,
        image.shape[1:],
        geometry,
        tile=tile,
        batch=data.draw(st.integers(1, 5)),
        embedding_dim=3,
    )
    assert found.dtype == np.float32
    assert np.abs(found - whole[:, *box.slices]).max() <= 1e-4 * whole.std()
    assert len(reads) == 1


@given(
    box=boxes((5000, 5000)),
    limit=st.integers(0, 600),
    levels=st.sampled_from([1, 2, 3]),
)
@example(box=Box((0, 0), (641, 641)), limit=600, levels=3)
def test_tiles_are_even_cover_the_box_from_the_grid_on_and_none_is_in_vain(
    box: Box, limit: int, levels: int
) -> None:
    geometry = make_checkpoint(levels=levels).geometry
    tile = tuple(m + limit for m in geometry.minimum)
    for axis, tiles, start, stop, most in zip(
        geometry.axes,
        tiles_of(box, geometry, tile=tile),
        box.start,
        box.stop,
        tile,
        strict=True,
    ):
        assert tiles.tile <= most
        assert tiles.kept == tiles.tile - 2 * axis.halo
        assert tiles.start % axis.period == 0
        assert tiles.kept % axis.period == 0
        assert start - axis.period < tiles.start <= start
        assert tiles.start + (tiles.count - 1) * tiles.kept < stop
        assert tiles.start + tiles.count * tiles.kept >= stop
        # evenly: a step less, and the tiles would not do
        smaller = tiles.kept - axis.step
        assert smaller < axis.kept(axis.minimum) or tiles.start + tiles.count * smaller < stop


def test_a_batch_never_holds_more_tiles_than_asked_for_and_all_are_of_one_size() -> None:
    network, geometry, image, _ = known("2D")
    shapes = []

    def engine(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        shapes.append(tiles.shape)
        return as_engine(network)(tiles)

    box = Box((3, 3), (140, 100))
    embeddings_of(
        lambda: nullcontext(engine),
        lambda part: image[:, *part.slices],
        box,
        image.shape[1:],
        geometry,
        tile=geometry.minimum,
        batch=4,
        embedding_dim=3,
    )
    assert max(s[0] for s in shapes) == 4
    assert len({s[1:] for s in shapes}) == 1
    rows, columns = tiles_of(box, geometry, tile=geometry.minimum)
    assert sum(s[0] for s in shapes) == rows.count * columns.count


@pytest.mark.parametrize(
    ("box", "tile", "words"),
    [
        (Box((0, 0), (151, 10)), (64, 64), "leaves the image"),
        (Box((-1, 0), (10, 10)), (64, 64), "leaves the image"),
        (Box((5, 5), (5, 10)), (64, 64), "at least one pixel"),
        (Box((0, 0), (10, 10)), (64, 40), "tiles of"),
    ],
)
def test_what_cannot_be_tiled_is_refused(box: Box, tile: tuple[int, int], words: str) -> None:
    network, geometry, image, _ = known("2D")
    with pytest.raises(GeometryError, match=words):
        embeddings_of(
            lambda: nullcontext(as_engine(network)),
            lambda part: image[:, *part.slices],
            box,
            image.shape[1:],
            geometry,
            tile=tile,
            batch=1,
            embedding_dim=3,
        )
