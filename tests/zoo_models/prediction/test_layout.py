"""Tile and block are the fastest that fit, or nearly as fast and smaller."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_models.errors import InputError
from zoo_models.geometry import Box, TileGeometry, ValidUNetAxis
from zoo_models.prediction.calibration import Calibration, Cost, Measured
from zoo_models.prediction.engine import tiles_of
from zoo_models.prediction.layout import (
    CLOSE,
    GPU_PIXELS,
    LARGEST_TILE,
    Layout,
    choose_layout,
    least_bytes,
    network_seconds,
)
from zoo_models.prediction.passes import grown, partition
from zoo_models.prediction.plan import BlockCost, blocks_of, needed

PLANE = TileGeometry.from_network([ValidUNetAxis(3, 2, 3, 2)] * 2)
"""Halo 48, tiles 112 + n * 16."""

VOLUME = TileGeometry.from_network([ValidUNetAxis(3, 2, 1, 2)] * 3)

COST = BlockCost(channels=1, dimensions=16, at_once=2)


def known(geometry: TileGeometry, *, gpu_bytes: int | None = None) -> Calibration:
    halo = geometry.halo
    return Calibration(
        time=Cost(1e-6, 0.8, halo),
        memory=Cost(600.0, 0.5, halo),
        measured=(),
        process_bytes=0,
        gpu_bytes=gpu_bytes,
    )


def chosen(
    calibration: Calibration,
    shape: tuple[int, ...],
    mib: float,
    limit: int | None = None,
    blocks: list[tuple[int, ...]] | None = None,
) -> Layout:
    return choose_layout(
        calibration,
        VOLUME if len(shape) == 3 else PLANE,
        shape,
        blocks or blocks_of(shape, (64,) * 3 if len(shape) == 3 else (512, 512)),
        lambda block: needed(block, shape, COST),
        int(mib * 2**20),
        limit=limit,
    )


@given(
    shape=st.tuples(*[st.integers(1, 3000)] * 2) | st.tuples(*[st.integers(1, 250)] * 3),
    number=st.integers(0, 3),
    edges=st.tuples(*[st.integers(0, 400)] * 3),
)
def test_the_time_is_that_of_every_tile_that_will_be_computed(
    shape: tuple[int, ...], number: int, edges: tuple[int, ...]
) -> None:
    geometry = VOLUME if len(shape) == 3 else PLANE
    calibration = known(geometry)
    blocks = blocks_of(shape, (64,) * 3 if len(shape) == 3 else (512, 512))
    block = blocks[min(number, len(blocks) - 1)]
    tile = tuple(m + e for m, e in zip(geometry.minimum, edges, strict=False))
    seconds = 0.0
    for one in partition(shape, block):
        axes = tiles_of(grown(one, shape), geometry, tile=tile)
        count = 1
        for axis in axes:
            count *= axis.count
        seconds += count * calibration.seconds([axis.tile for axis in axes])
    found = network_seconds(calibration, geometry, shape, block, tile)
    assert found == pytest.approx(seconds, rel=1e-9)


@given(
    shape=st.tuples(*[st.integers(1, 9000)] * 2) | st.tuples(*[st.integers(1, 400)] * 3),
    mib=st.integers(150, 8000),
    limit=st.none() | st.integers(1, 3000),
)
def test_no_layout_that_fits_is_much_faster_or_as_fast_and_smaller(
    shape: tuple[int, ...], mib: int, limit: int | None
) -> None:
    geometry = VOLUME if len(shape) == 3 else PLANE
    calibration = known(geometry)
    found = chosen(calibration, shape, mib, limit)
    assert found.batch == 1
    most = limit or LARGEST_TILE[geometry.ndim]
    for axis, edge in zip(geometry.axes, found.tile, strict=True):
        assert axis.kept(edge) > 0  # refuses a size off the grid
        assert edge <= max(axis.minimum, most)
    taken = calibration.peak_bytes(found.tile) + needed(found.block, shape, COST)
    assert taken == found.bytes <= mib * 2**20
    for block in blocks_of(shape, (64,) * 3 if len(shape) == 3 else (512, 512)):
        for edge in range(min(geometry.minimum), most + 1, 16 * 7):
            tile = tuple(
                min(axis.largest_tile(max(edge, axis.minimum)), axis.smallest_tile(n))
                for axis, n in zip(geometry.axes, shape, strict=True)
            )
            taken = calibration.peak_bytes(tile) + needed(block, shape, COST)
            if taken <= mib * 2**20:
                other = network_seconds(calibration, geometry, shape, block, tile)
                assert found.seconds <= CLOSE * other * (1 + 1e-9)
                assert found.bytes <= taken or other > found.seconds


def test_a_tile_keeps_just_what_its_block_computes() -> None:
    """512 + 2 * 7 pixels, on the grid of 8 these are 528, and the halo of 48 on both sides."""
    found = chosen(known(PLANE), (20_000, 20_000), 420, blocks=[(512, 512)])
    assert found.tile == (624, 624)
    box = Box((505, 505), (1031, 1031))
    assert [axis.count for axis in tiles_of(box, PLANE, tile=found.tile)] == [1, 1]
    smaller = network_seconds(known(PLANE), PLANE, (20_000, 20_000), (512, 512), (608, 608))
    assert smaller > 1.1 * found.seconds


def test_a_tile_is_no_larger_than_the_measured_one_after_which_pixels_cost_more() -> None:
    seconds = {320: 1e-6, 512: 0.9e-6, 960: 1.1e-6}  # for each kept pixel
    measured = tuple(
        Measured((edge, edge), cost * (edge - 96) ** 2, 1) for edge, cost in seconds.items()
    )
    slower = dataclasses.replace(known(PLANE), measured=measured)
    assert max(chosen(slower, (20_000, 20_000), 2**14).tile) <= 512
    faster = dataclasses.replace(known(PLANE), measured=measured[:2])
    assert max(chosen(faster, (20_000, 20_000), 2**14).tile) > 512


def test_the_least_memory_is_enough_and_less_is_not() -> None:
    """600 bytes for each of (112 - 48)^2 pixels, beside the block."""
    calibration, shape = known(PLANE), (5000, 5000)
    block = needed((512, 512), shape, COST)
    least = least_bytes(calibration, PLANE, block)
    assert least == block + 600 * 64**2
    assert chosen(calibration, shape, least / 2**20).tile == (112, 112)
    with pytest.raises(InputError, match="its smallest tile of 112 x 112 pixels"):
        chosen(calibration, shape, least / 2**20 - 1)


def test_a_gpu_gets_several_small_tiles_at_once_as_far_as_its_own_memory_goes() -> None:
    shape, one = (5000, 5000), known(PLANE).peak_bytes((256, 256))
    mib = needed((512, 512), shape, COST) / 2**20  # nothing for tiles
    roomy = chosen(known(PLANE, gpu_bytes=2**34), shape, mib, limit=256)
    assert roomy.batch == GPU_PIXELS // (roomy.tile[0] * roomy.tile[1])
    tight = chosen(known(PLANE, gpu_bytes=3 * one), shape, mib, limit=256)
    assert tight.batch * known(PLANE).peak_bytes(tight.tile) <= 3 * one
    with pytest.raises(InputError, match="--device cpu"):
        chosen(known(PLANE, gpu_bytes=2**20), shape, mib, limit=256)
