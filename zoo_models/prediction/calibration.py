"""What a tile costs in this engine on this machine, measured: seconds and memory per pixel.

Two or three tiles, small to large, a few seconds. A valid network computes less than its tile, and
a consumer's halo is thrown away, so both costs grow as a tile's inner part does, not as the tile::

    |<---------------------- T -------------------->|
    |  e / 2  |<----- T - e: what is paid ----->|  e / 2  |       0 <= e <= 2 halo, fitted
    |    H    |<----- T - 2H: what is kept ---->|    H    |

    cost(T) = per_pixel * product over axes of (T - e)

so that per_pixel is also an upper limit for what a pixel of any tile costs.

Memory is what the process grows by, from before the tiles to the peak while one runs; what a
runtime keeps for the next tile is counted in (see memory_meter.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry
from zoo_models.prediction.engines import Engine, seconds_of
from zoo_models.prediction.memory_meter import meter_of, resident

LADDER = {2: (256, 448, 800), 3: (64, 88, 112)}
"""Edges of the tiles that are measured, in pixels; by number of space axes. The last is about what
is chosen: a C library treats large arrays in ways of its own, which smaller ones do not tell."""

SECONDS = 6.0
"""No third tile is measured that takes longer."""

MOST_EXCESS = 0.85
"""Of the halo; a fit beyond it is noise, as what is kept needs some of its surroundings."""

MARGIN = 1.1
"""On the measured memory, which repeats to a few percent only."""


@dataclass(frozen=True)
class Cost:
    """per_pixel times the product of (size - excess * 2 halo) over a tile's axes."""

    per_pixel: float
    excess: float
    halo: tuple[int, ...]

    def of(self, tile: Sequence[int]) -> float:
        """Of one tile (z)yx."""
        return self.per_pixel * _inner(tile, self.halo, self.excess)


@dataclass(frozen=True)
class Measured:
    """One tile (z)yx that was run: seconds, and bytes at the peak above the process before."""

    tile: tuple[int, ...]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Calibration:
    """What the engine costs.

    time, memory: in seconds and in bytes (with a margin of 10 %), for one tile.
    measured: what they were fitted to.
    process_bytes: what this process held before, engine and libraries included.
    gpu_bytes: what the network may take of a GPU's memory, where it runs on one.
    """

    time: Cost
    memory: Cost
    measured: tuple[Measured, ...]
    process_bytes: int
    gpu_bytes: int | None = None

    @property
    def seconds_per_pixel(self) -> float:
        """Per pixel of a tile, halo included, at most."""
        return self.time.per_pixel

    @property
    def bytes_per_pixel(self) -> float:
        """Per pixel of a tile, halo included, at most."""
        return self.memory.per_pixel

    def peak_bytes(self, tile: Sequence[int], batch: int = 1) -> int:
        """What the engine takes while it runs `batch` tiles (z)yx, in bytes."""
        return math.ceil(self.memory.of(tile) * batch)

    def seconds(self, tile: Sequence[int]) -> float:
        """For one tile (z)yx."""
        return self.time.of(tile)

    def seconds_per_kept_pixel(self, measured: Measured) -> float:
        """Of a tile that was run, without its halo."""
        return measured.seconds / _inner(measured.tile, self.time.halo, 1.0)


def calibrate(
    engine: Engine,
    geometry: TileGeometry,
    channels: int,
    embedding_dim: int,
    *,
    memory_bytes: int | None = None,
) -> Calibration:
    """Run a few tiles of noise and measure them; takes a few seconds, before other work begins.

    No tile is run of which the smaller ones tell that it takes more than `memory_bytes`. Anything
    else that takes memory in this process meanwhile is counted as the engine's.

    Raises:
        InputError: the engine gives an output of another shape, or the system does not tell how
            much memory is used.
    """
    halo = geometry.halo
    meter = meter_of(engine.device)
    noise = np.random.default_rng(0)
    engine(noise.random((1, channels, *geometry.minimum), np.float32))  # what is made only once
    process_bytes = resident()
    meter.begin()
    measured: list[Measured] = []
    for tile in _ladder(geometry):
        if len(measured) > 1 and (
            _time(measured, halo).of(tile) > SECONDS
            or _memory(measured, halo).of(tile) > (memory_bytes or math.inf)
        ):
            break
        pixels = noise.random((1, channels, *tile), np.float32)
        meter.before_tile()
        _expect_shape(engine, engine(pixels).shape, (1, embedding_dim, *tile))
        seconds = seconds_of(engine, pixels, 0.3, least=1 if measured else 3)
        measured.append(Measured(tile, seconds, meter.peak()))
    return Calibration(
        time=_time(measured, halo),
        memory=_memory(measured, halo),
        measured=tuple(measured),
        process_bytes=process_bytes,
        gpu_bytes=meter.free(),
    )


def _time(measured: Sequence[Measured], halo: tuple[int, ...]) -> Cost:
    return _fitted(halo, [(m.tile, m.seconds) for m in (measured[0], measured[-1])])


def _memory(measured: Sequence[Measured], halo: tuple[int, ...]) -> Cost:
    return _fitted(halo, [(m.tile, MARGIN * m.peak_bytes) for m in measured[-2:]])


def _expect_shape(engine: Engine, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            f"The engine {engine.name} answers with an array of shape {found}, expected "
            f"{expected}; export the package again."
        )


def _ladder(geometry: TileGeometry) -> list[tuple[int, ...]]:
    """The tiles to measure: at most the edges of LADDER, where the network's minimum allows."""
    tiles = []
    for number, edge in enumerate(LADDER[geometry.ndim]):
        limit = [max(edge, axis.minimum + number * axis.minimum // 2) for axis in geometry.axes]
        tiles.append(
            tuple(a.largest_tile(at_most) for a, at_most in zip(geometry.axes, limit, strict=True))
        )
    return tiles


def _fitted(halo: tuple[int, ...], points: Sequence[tuple[tuple[int, ...], float]]) -> Cost:
    """The cost that passes through two tiles' costs: their ratio tells the excess.

    The larger the excess, the smaller the ratio of the inner parts, so bisection finds it.
    """
    (small, small_cost), (large, large_cost) = points
    low, high = 0.0, MOST_EXCESS
    for _ in range(30):
        middle = (low + high) / 2
        ratio = _inner(small, halo, middle) / _inner(large, halo, middle)
        low, high = (middle, high) if ratio * large_cost > small_cost else (low, middle)
    return Cost(large_cost / _inner(large, halo, low), low, halo)


def _inner(tile: Sequence[int], halo: Sequence[int], excess: float) -> float:
    """Pixels of a tile that are paid for."""
    return math.prod(t - excess * 2 * h for t, h in zip(tile, halo, strict=True))
