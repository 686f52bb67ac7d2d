"""Measured costs tell those of other tiles; the tile that is chosen fits and is worth its size."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry, ValidUNetAxis
from zoo_models.prediction import engines
from zoo_models.prediction.calibration import (
    Calibration,
    calibrate,
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
