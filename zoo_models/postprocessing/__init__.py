"""Clusterers: embeddings in, instances out. One file is one method, and is shipped in packages."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zoo_models.checkpoint import ClustererSettings
from zoo_models.errors import InputError

CLUSTERERS = {
    "basin_merging": "BasinMerging",
    "consistency": "ConsistencyClustering",
    "hdbscan_pixels": "HdbscanPixels",
    "mean_shift": "MeanShift",
    "mutex_watershed": "MutexWatershed",
}
"""File in this folder -> the one public class in it."""

COMPILED = ("basin_merging", "mutex_watershed")
"""Those with a twin in `zoo_models.compiled`: the same labels, sooner on large arrays."""


class Clusterer(Protocol):
    """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int32, 0 is background."""

    def __call__(
        self, embeddings: NDArray[np.float32], foreground: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]: ...


def build_clusterer(choice: ClustererSettings, *, compiled: bool = False) -> Clusterer:
    """The clusterer that a checkpoint or a package names; its compiled twin where there is one.

    Raises:
        InputError: unknown method or settings it does not take.
    """
    if choice.name not in CLUSTERERS:
        raise InputError(
            f"Unknown clusterer {choice.name!r}: expected one of {', '.join(CLUSTERERS)}."
        )
    twin = compiled and choice.name in COMPILED
    folder = "zoo_models.compiled" if twin else __name__
    module = import_module(f"{folder}.{choice.name}")
    try:
        clusterer: Clusterer = getattr(module, CLUSTERERS[choice.name])(**choice.settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"Clusterer {choice.name}: {error}.") from error
    return clusterer


def clusterer_file(name: str) -> Path:
    """The source file that is shipped and hashed."""
    return Path(__file__).with_name(f"{name}.py")
