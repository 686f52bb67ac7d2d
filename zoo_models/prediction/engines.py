"""Which runtime runs the network: the one asked for, or the fastest that gives the same answer.

    installed engines ──▶ one tile each: seconds, and difference ──▶ the fastest that agrees
                          from float32 TorchScript

Times vary from run to run, so "auto" may choose another engine the next time. Engines differ in the
last bits: what has to be repeated byte for byte must keep the chosen name, not "auto".
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.geometry import Box, TileGeometry
from zoo_models.package_weights import PackageWeights
from zoo_models.prediction.blocks import read_mirrored
from zoo_models.prediction.runtimes import RUNTIMES

AUTO = "auto"
ENGINES = (AUTO, *RUNTIMES)
PRECISIONS = ("float32", "bfloat16")

LIMITS = {"float32": 1e-4, "bfloat16": 0.03}
"""Differences that are allowed, in sigma of the embeddings: float32 the largest, bfloat16 the root
of the mean square (8 bits give 0.006 to 0.008)."""

TRIAL_TILE = {2: 448, 3: 88}
"""Edge of the tile that engines are compared on, at most; by number of space axes. In smaller ones
they differ by less than times vary."""

TRIAL_SECONDS = 2.0
TRIAL_SHARE = 0.01
"""For each engine, beside two calls, at most: seconds, and share of all the work. Engines differ by
less than half, and what a trial can win must not be lost in it."""

TRIALS_PAY = 20.0
"""Seconds of work from which on four seconds of trials are won back."""

COMPILE_PAYS = 600.0
"""Seconds of work from which on half a minute of compilation is won back."""


class Engine(Protocol):
    """Runs tiles (N, C, [Z,] Y, X) float32 -> (N, D, [Z,] Y, X) float32; one call at a time.

    The answer may be the engine's own memory, which the next call overwrites.
    """

    @property
    def name(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class EngineChoice:
    """What is to run the network.

    name: one of ENGINES. precision: of the convolutions, one of PRECISIONS.
    device: as torch names it: cpu, cuda, cuda:1, mps.
    threads: on the CPU; None: as many as torch has. A torch engine sets torch's number, each time.

    Raises:
        InputError: no such name or precision, no threads, or bfloat16 where the device has none.
    """

    name: str = AUTO
    precision: str = "float32"
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--engine", self.name, ENGINES),
            ("--precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise InputError(f"{option} {value}: expected one of {', '.join(known)}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"Found {self.threads} threads for the engine, expected 1 or more.")
        if self.precision == "bfloat16" and not has_bfloat16(self.device):
            raise InputError(
                f"--precision bfloat16: the device {self.device} does not compute in bfloat16; "
                "take float32."
            )


def has_bfloat16(device: str) -> bool:
    """Whether convolutions in bfloat16 run on this device rather than being imitated."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


@dataclass(frozen=True)
class Trial:
    """What was measured of one engine.

    seconds: for one tile, best of several; None: not run.
    largest, rms: difference from float32 TorchScript, in sigma of the embeddings.
    refused: why it was not taken; None: it could be.
    """

    name: str
    seconds: float | None = None
    largest: float | None = None
    rms: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Fastest:
    """The engine that was kept, and what was measured of all.

    tile: (z)yx pixels of the tile that it was measured on.
    """

    engine: Engine
    trials: tuple[Trial, ...]
    tile: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.engine.name


def build_engine(package_source: Path, choice: EngineChoice) -> Engine:
    """The engine of that name with the package's network.

    Raises:
        InputError: "auto", which is for `fastest_engine`; not installed (it says how to); or it
            cannot do the precision or the device.
        PackageError: the package cannot be read.
    """
    return _build(PackageWeights.of_package(package_source), choice)


def fastest_engine(
    package_source: Path, choice: EngineChoice, *, pixels: float | None = None
) -> Fastest:
    """Measure the installed engines on the package's own test image; keep the fastest that agrees.

    A few seconds, fewer where there is little to do. `choice` gives precision, device and threads.
    TorchScript is taken where `pixels`, all that the network has to compute, are less than 20
    seconds of work for it. torch.compile takes half a minute for each shape of tiles, so it is
    tried only where they are ten minutes and more.

    Raises:
        InputError: no engine can run as asked for. PackageError: the package cannot be read.
    """
    weights = PackageWeights.of_package(package_source)
    tile = _trial_tile(weights)
    plain = _build(weights, replace(choice, name="torchscript", precision="float32"))
    expected = _kept(plain(tile), weights.geometry)
    work = None if pixels is None else pixels / expected[0, 0].size * seconds_of(plain, tile, 0.0)
    budget = TRIAL_SECONDS if work is None else min(TRIAL_SECONDS, TRIAL_SHARE * work)
    trials: list[Trial] = []
    engines: dict[str, Engine] = {}
    for name in RUNTIMES:
        if name == "compile" and (work or 0.0) < COMPILE_PAYS:
            trials.append(Trial(name, refused="takes longer to compile than it wins"))
            continue
        if name != plain.name and work is not None and work < TRIALS_PAY:
            trials.append(Trial(name, refused="takes longer to try than it wins"))
            continue
        try:
            same = (name, choice.precision) == (plain.name, plain.precision)
            engine = plain if same else _build(weights, replace(choice, name=name))
        except InputError as error:
            trials.append(Trial(name, refused=str(error)))
            continue
        trials.append(_try(engine, tile, expected, weights.geometry, budget))
        engines[name] = engine
    able = [t for t in trials if t.refused is None]
    if not able:
        reasons = "; ".join(f"{t.name}: {t.refused}" for t in trials)
        raise InputError(f"{package_source}: no engine runs as asked for ({reasons}).")
    best = min(able, key=lambda trial: trial.seconds or 0.0)
    return Fastest(engines[best.name], tuple(trials), tile.shape[2:])


def _build(weights: PackageWeights, choice: EngineChoice) -> Engine:
    if choice.name == AUTO:
        raise InputError(
            f"--engine auto must be measured first; name one of {', '.join(RUNTIMES)}."
        )
    return RUNTIMES[choice.name](weights, choice.precision, choice.device, choice.threads)


def _trial_tile(weights: PackageWeights) -> NDArray[np.float32]:
    """The package's test image, mirrored to a tile (1, C, [Z,] Y, X)."""
    geometry = weights.geometry
    limit = TRIAL_TILE[geometry.ndim]
    shape = tuple(axis.largest_tile(limit) for axis in geometry.axes)
    return read_mirrored(weights.example(), Box.of_shape(shape))[None]


def _kept(output: NDArray[np.float32], geometry: TileGeometry) -> NDArray[np.float32]:
    inner = Box.of_shape(output.shape[2:]).grow([-h for h in geometry.halo])
    return output[:, :, *inner.slices]


def _try(
    engine: Engine,
    tile: NDArray[np.float32],
    expected: NDArray[np.float32],
    geometry: TileGeometry,
    budget: float,
) -> Trial:
    difference = _kept(engine(tile), geometry) - expected
    sigma = float(expected.std())
    largest = float(np.abs(difference).max()) / sigma
    rms = float(np.sqrt(np.square(difference).mean())) / sigma
    found = largest if engine.precision == "float32" else rms
    limit = LIMITS[engine.precision]
    refused = None
    if not found <= limit:  # also where it is not a number
        refused = f"differs by {found:.1e} sigma from TorchScript, at most {limit:g} is allowed"
    return Trial(engine.name, seconds_of(engine, tile, budget), largest, rms, refused)


def seconds_of(
    engine: Engine, tiles: NDArray[np.float32], budget: float, *, least: int = 1
) -> float:
    """The shortest of `least` calls, and of as many as `budget` seconds allow up to five."""
    best, begin = float("inf"), time.perf_counter()
    for number in range(5):
        if number >= least and time.perf_counter() - begin > budget:
            break
        start = time.perf_counter()
        engine(tiles)
        best = min(best, time.perf_counter() - start)
    return best
