"""Which runtime runs the network, in which precision, on which device.

"auto" is for engine_trials.py to resolve.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.package_weights import PackageWeights
from zoo_models.prediction.runtimes import RUNTIMES

AUTO = "auto"
ENGINES = (AUTO, *RUNTIMES)
PRECISIONS = ("float32", "bfloat16")


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


def build_engine(package: Path | PackageWeights, choice: EngineChoice) -> Engine:
    """The engine of that name with the package's network.

    Raises:
        InputError: "auto", which is for `fastest_engine`; not installed (it says how to); or it
            cannot do the precision or the device.
        PackageError: the package cannot be read.
    """
    if choice.name == AUTO:
        raise InputError(
            f"--engine auto must be measured first; name one of {', '.join(RUNTIMES)}."
        )
    weights = PackageWeights.of_package(package) if isinstance(package, Path) else package
    return RUNTIMES[choice.name](weights, choice.precision, choice.device, choice.threads)


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
