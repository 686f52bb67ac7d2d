"""Measured costs tell those of other tiles; the tile that is chosen fits and is worth its size."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry, ValidUNetAxis
from zoo_models.prediction import engines
from zoo_models.prediction.calibration import (
    CLOSE,
    GPU_PIXELS,
    LARGEST,
    Calibration,
    Cost,
    Measured,
    calibrate,
    choose_tile,
)

PLANE = TileGeometry.from_network([ValidUNetAxis(3, 2, 3, 2)] * 2)
"""Halo 48, tiles 112 + n * 16."""

VOLUME = TileGeometry.from_network([ValidUNetAxis(3, 2, 1, 2)] * 3)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="macOS knows its life's peak only")


class Costly:
    """Takes known memory and time for what is inside of a tile: no network, no runtime.

    bytes_per_pixel, seconds_per_pixel: of the tile without `lost` pixels per axis.
    clock: how late it is, in seconds.
    """

    name, precision, device = "costly", "float32", "cpu"

    def __init__(self, bytes_per_pixel: int, lost: int, seconds_per_pixel: float = 0.0) -> None:
        self.bytes_per_pixel = bytes_per_pixel
        self.lost = lost
        self.seconds_per_pixel = seconds_per_pixel
        self.clock = 0.0
        self.tiles: list[tuple[int, ...]] = []

    def inner(self, tile: tuple[int, ...]) -> float:
        return float(np.prod([t - self.lost for t in tile]))

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = tiles.shape[2:]
        self.tiles.append(shape)
        work = np.ones(int(self.bytes_per_pixel * self.inner(shape)), np.uint8)
        self.clock += self.seconds_per_pixel * self.inner(shape) * work[-1]
        return np.zeros((len(tiles), 1, *shape), np.float32)


@LINUX
@pytest.mark.parametrize("lost", [0, 60])
def test_the_memory_of_tiles_that_were_not_measured_is_known_within_a_fifth(lost: int) -> None:
    engine = Costly(600, lost)
    found = calibrate(engine, PLANE, channels=1, embedding_dim=1)
    for edge in (448, 704, 1024, 2048):
        # what the engine takes, and its output: of the whole tile
        truth = 600 * engine.inner((edge, edge)) + 4 * edge**2
        assert truth <= found.peak_bytes((edge, edge)) <= 1.2 * truth


def timed(
    monkeypatch: pytest.MonkeyPatch, lost: int, *, seconds_per_pixel: float
) -> tuple[Costly, Calibration]:
    """An engine, and what its own clock tells."""
    engine = Costly(8, lost, seconds_per_pixel)
    clock = SimpleNamespace(perf_counter=lambda: engine.clock)
    monkeypatch.setattr(engines, "time", clock)
    return engine, calibrate(engine, PLANE, channels=1, embedding_dim=1)


@pytest.mark.parametrize("lost", [0, 80])
def test_the_time_of_tiles_that_were_not_measured_is_known(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, found = timed(monkeypatch, lost, seconds_per_pixel=2e-7)
    for edge in (448, 1024, 2048):
        truth = 2e-7 * engine.inner((edge, edge))
        assert found.seconds((edge, edge)) == pytest.approx(truth, rel=1e-3)
        assert found.seconds_per_pixel * edge**2 >= found.seconds((edge, edge))


def test_no_tile_is_measured_that_would_not_fit() -> None:
    engine = Costly(600, 0)
    calibrate(engine, PLANE, channels=1, embedding_dim=1, memory_bytes=300 * 2**20)
    assert 300 < max(max(tile) for tile in engine.tiles) < 700


@pytest.mark.parametrize(("seconds", "largest"), [(5.9, 800), (6.1, 448)])
def test_no_third_tile_is_measured_that_takes_long(
    seconds: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = timed(monkeypatch, 0, seconds_per_pixel=seconds / 800**2)
    assert max(max(tile) for tile in engine.tiles) == largest


def test_an_engine_of_another_package_is_noticed() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 1, 256, 256\), expected \(1, 7, 256, 256\)"):
        calibrate(Costly(8, 0), PLANE, channels=1, embedding_dim=7)


def known(
    geometry: TileGeometry, *, bytes_per_pixel: float = 600.0, gpu_bytes: int | None = None
) -> Calibration:
    halo = geometry.halo
    return Calibration(
        time=Cost(1e-6, 0.8, halo),
        memory=Cost(bytes_per_pixel, 0.5, halo),
        measured=(),
        process_bytes=0,
        gpu_bytes=gpu_bytes,
    )


@given(
    geometry=st.sampled_from([PLANE, VOLUME]),
    mib=st.integers(100, 40_000),
    limit=st.none() | st.integers(1, 3000),
    data=st.data(),
)
def test_the_tile_fits_is_on_the_grid_and_no_larger_one_would_be_better(
    geometry: TileGeometry, mib: int, limit: int | None, data: st.DataObject
) -> None:
    sizes = st.tuples(*[st.integers(1, 4000)] * geometry.ndim)
    shape = data.draw(st.none() | sizes)
    calibration = known(geometry)
    tile, batch = choose_tile(calibration, geometry, mib * 2**20, shape=shape, limit=limit)
    assert batch == 1
    assert calibration.peak_bytes(tile) <= mib * 2**20
    for axis, edge, size in zip(geometry.axes, tile, shape or tile, strict=True):
        assert axis.kept(edge) > 0  # refuses a size off the grid
        assert edge <= max(axis.minimum, limit or LARGEST[geometry.ndim])
        assert edge <= axis.smallest_tile(max(size, 1))
    larger = [
        tuple(
            t + a.step * (i == grown)
            for i, (t, a) in enumerate(zip(tile, geometry.axes, strict=True))
        )
        for grown in range(geometry.ndim)
    ]
    if shape is None and limit is None and max(tile) < LARGEST[geometry.ndim]:
        enough = calibration.overhead(tile) <= CLOSE
        all_larger = tuple(t + a.step for t, a in zip(tile, geometry.axes, strict=True))
        assert enough or calibration.peak_bytes(all_larger) > mib * 2**20
    assert all(calibration.overhead(other) < calibration.overhead(tile) for other in larger)


def test_an_endless_tile_costs_nothing_more_and_small_ones_do() -> None:
    calibration = known(PLANE)
    assert calibration.overhead((10**7, 10**7)) == pytest.approx(1.0, abs=1e-4)
    # (112 - 0.8 * 96)^2 / (112 - 96)^2
    assert calibration.overhead((112, 112)) == pytest.approx((35.2 / 16) ** 2)


def test_a_tile_is_no_larger_than_the_measured_one_after_which_pixels_cost_more() -> None:
    seconds = {320: 1e-6, 512: 0.9e-6, 960: 1.1e-6}  # for each kept pixel
    measured = tuple(
        Measured((edge, edge), cost * (edge - 96) ** 2, 1) for edge, cost in seconds.items()
    )
    slower = dataclasses.replace(known(PLANE), measured=measured)
    assert choose_tile(slower, PLANE, 2**34) == ((512, 512), 1)
    faster = dataclasses.replace(known(PLANE), measured=measured[:2])
    assert choose_tile(faster, PLANE, 2**34)[0] > (512, 512)


def test_too_little_memory_says_how_much_is_needed() -> None:
    # 600 bytes for (112 - 48)^2 pixels
    with pytest.raises(InputError, match=r"needs 3 MiB .* 112 x 112 pixels, and 1 MiB"):
        choose_tile(known(PLANE), PLANE, 2**20)
    with pytest.raises(InputError, match="and 0 MiB"):
        choose_tile(known(PLANE), PLANE, -5)


def test_a_gpu_gets_several_small_tiles_at_once_as_far_as_its_own_memory_goes() -> None:
    roomy = known(PLANE, gpu_bytes=2**34)
    assert choose_tile(roomy, PLANE, 0, limit=256) == ((256, 256), GPU_PIXELS // 256**2)
    tight = known(PLANE, gpu_bytes=3 * known(PLANE).peak_bytes((256, 256)))
    assert choose_tile(tight, PLANE, 0, limit=256) == ((256, 256), 3)
