"""The fastest installed engine that gives TorchScript's answer.

    installed engines ──▶ one tile each: seconds, and difference ──▶ the fastest that agrees
                          from float32 TorchScript

Times vary from run to run, so the next time it may be another. Engines differ in the last bits:
what has to be repeated byte for byte must keep the name that was found.

What torch.compile loads, 150 MiB, would stay: it is tried in a process of its own::

    python -m zoo_models.prediction.engine_trials PACKAGE CHOICE BUDGET     prints a Trial as JSON
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.geometry import Box, TileGeometry
from zoo_models.package_weights import PackageWeights
from zoo_models.prediction.blocks import read_mirrored
from zoo_models.prediction.engines import Engine, EngineChoice, build_engine, seconds_of
from zoo_models.prediction.runtimes import RUNTIMES

PLAIN = "torchscript"
"""The runtime whose answer in float32 counts."""

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

COMPILER_BYTES = 700 * 2**20
"""What trying torch.compile takes, with the compiler's own processes (632 and 648 MiB measured)."""


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
    """The name of the fastest engine that agrees, and what was measured of all.

    tile: (z)yx pixels of the tile that it was measured on.
    """

    name: str
    trials: tuple[Trial, ...]
    tile: tuple[int, ...]


def fastest_engine(
    package: Path,
    choice: EngineChoice,
    *,
    pixels: float | None = None,
    memory_bytes: int | None = None,
) -> Fastest:
    """Measure the installed engines on the package's own test image; name the fastest that agrees.

    A few seconds, fewer where there is little to do. `choice` gives precision, device and threads.
    TorchScript is taken where `pixels`, all that the network has to compute, are less than 20
    seconds of work for it. torch.compile takes half a minute for each shape of tiles, so it is
    tried only where they are ten minutes and more, and `memory_bytes`, what may be taken beside
    this process, suffice for its compiler.

    Raises:
        InputError: no engine can run as asked for. PackageError: the package cannot be read.
    """
    measure = _Measure.of(package, choice)
    work = None if pixels is None else pixels * measure.seconds_per_pixel()
    budget = TRIAL_SECONDS if work is None else min(TRIAL_SECONDS, TRIAL_SHARE * work)
    trials: list[Trial] = []
    for name in RUNTIMES:
        wanted = replace(choice, name=name)
        if name == "compile" and (work or 0.0) < COMPILE_PAYS:
            trials.append(Trial(name, refused="takes longer to compile than it wins"))
        elif name == "compile" and memory_bytes is not None and memory_bytes < COMPILER_BYTES:
            trials.append(Trial(name, refused="its compiler takes more memory than is allowed"))
        elif name != PLAIN and work is not None and work < TRIALS_PAY:
            trials.append(Trial(name, refused="takes longer to try than it wins"))
        elif name == "compile":
            trials.append(_tried_apart(package, wanted, budget))
        else:
            trials.append(measure.tried(wanted, budget))
    able = [t for t in trials if t.refused is None]
    if not able:
        reasons = "; ".join(f"{t.name}: {t.refused}" for t in trials)
        raise InputError(f"{package}: no engine runs as asked for ({reasons}).")
    best = min(able, key=lambda trial: trial.seconds or 0.0)
    return Fastest(best.name, tuple(trials), measure.tile.shape[2:])


@dataclass(frozen=True, eq=False)
class _Measure:
    """What engines are compared on.

    tile: the package's test image, mirrored to (1, C, [Z,] Y, X).
    plain, expected: TorchScript in float32, and the inner part of its answer.
    """

    weights: PackageWeights
    tile: NDArray[np.float32]
    plain: Engine
    expected: NDArray[np.float32]

    @classmethod
    def of(cls, package: Path, choice: EngineChoice) -> _Measure:
        weights = PackageWeights.of_package(package)
        axes = weights.geometry.axes
        shape = tuple(axis.largest_tile(TRIAL_TILE[len(axes)]) for axis in axes)
        tile = read_mirrored(weights.example(), Box.of_shape(shape))[None]
        plain = build_engine(weights, replace(choice, name=PLAIN, precision="float32"))
        return cls(weights, tile, plain, _inner(plain(tile), weights.geometry))

    def seconds_per_pixel(self) -> float:
        """Of TorchScript, per pixel that is kept."""
        return seconds_of(self.plain, self.tile, 0.0) / math.prod(self.expected.shape[2:])

    def tried(self, choice: EngineChoice, budget: float) -> Trial:
        same = (choice.name, choice.precision) == (self.plain.name, self.plain.precision)
        try:
            engine = self.plain if same else build_engine(self.weights, choice)
        except InputError as error:
            return Trial(choice.name, refused=str(error))
        difference = _inner(engine(self.tile), self.weights.geometry) - self.expected
        sigma = float(self.expected.std())
        largest = float(np.abs(difference).max()) / sigma
        rms = float(np.sqrt(np.square(difference).mean())) / sigma
        found, limit = largest if choice.precision == "float32" else rms, LIMITS[choice.precision]
        refused = None
        if not found <= limit:  # also where it is not a number
            refused = f"differs by {found:.1e} sigma from TorchScript, at most {limit:g} is allowed"
        return Trial(choice.name, seconds_of(engine, self.tile, budget), largest, rms, refused)


def _inner(output: NDArray[np.float32], geometry: TileGeometry) -> NDArray[np.float32]:
    kept = Box.of_shape(output.shape[2:]).grow([-h for h in geometry.halo])
    return output[:, :, *kept.slices]


def _tried_apart(package: Path, choice: EngineChoice, budget: float) -> Trial:
    """In a process of its own, which takes along what it loaded when it ends."""
    asked = [str(package), json.dumps(asdict(choice)), str(budget)]
    command = [sys.executable, "-W", "ignore", "-m", __name__, *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Trial(choice.name, refused=f"its trial failed: {told}")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    asked = EngineChoice(**json.loads(sys.argv[2]))
    trial = _Measure.of(Path(sys.argv[1]), asked).tried(asked, float(sys.argv[3]))
    print(json.dumps(asdict(trial)))
