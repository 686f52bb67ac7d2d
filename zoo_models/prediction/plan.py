"""How large tiles, blocks and chunks are, so that a run stays within the memory it was given.

memory  =  what the process holds before the first block, and LOADED_LATER
        +  one batch of tiles in the network       measured per pixel (calibration.py)
        +  blocks in work x their pixels           embeddings, clustering: bytes per pixel below
        +  ARENA for each of them                  freed, but not given back
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry
from zoo_models.prediction.fragments import MARGIN

CHUNK = {2: 512, 3: 64}
"""Edge of a file of labels, by number of space axes; rounded down to the period."""

LARGEST_BLOCK = {2: 4096, 3: 384}
"""Edge from which on larger blocks gain nothing: what is read twice is below 1 % in 2D."""

LOADED_LATER = 128 * 2**20
"""With the first block: Zarr, numba and its compiled loops; 105 MiB were measured."""

ARENA = 64 * 2**20
"""What glibc keeps for each thread: up to twice 32 MiB, the size from which on it maps arrays."""

CLUSTERING_BYTES = 72
"""Per pixel of a block, embeddings apart: 40 in basin merging (benchmarks/clustering.py, 4096 x
4096), 20 in what is handed on, 12 in masks and labels."""

WHOLE_BYTES = {
    "basin_merging": 40,
    "consistency": 144,
    "hdbscan_pixels": 2930,
    "mean_shift": 300,
    "mutex_watershed": 655,
}
"""Per pixel, embeddings apart, of each method on an image in one piece: peak of
benchmarks/clustering.py at 448 x 448 divided by its pixels."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class BlockCost:
    """Bytes per pixel of a block, and how many blocks are in work at once."""

    channels: int
    dimensions: int
    at_once: int

    @property
    def bytes_per_pixel(self) -> int:
        """The image twice, as read and as normalised; its embeddings twice, while they are cut."""
        return 8 * self.channels + 4 * self.dimensions + CLUSTERING_BYTES


def parse_bytes(text: str) -> int:
    """'4GiB', '500 MB', '2g' or a number of bytes.

    Raises:
        InputError: something else, or nothing at all.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmg]i?|)b?\s*", text.lower())
    if found is None or float(found[1]) == 0:
        raise InputError(f"--memory {text}: expected an amount such as 4GiB or 500MB.")
    return int(float(found[1]) * UNITS[found[2]])


def half_the_memory() -> int:
    """Half of what this machine, or the container this process runs in, has; in bytes."""
    total: int = psutil.virtual_memory().total
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total // 2


def chunk_edges(geometry: TileGeometry) -> tuple[int, ...]:
    """(z)yx pixels of a chunk: a multiple of the period, so that blocks lie on its grid."""
    return tuple(max(CHUNK[geometry.ndim] // p, 1) * p for p in geometry.period)


def blocks_of(shape: Sequence[int], chunk: Sequence[int]) -> list[tuple[int, ...]]:
    """The blocks, in whole chunks, that an image of `shape` may be cut into, small to large."""
    largest = LARGEST_BLOCK[len(shape)]
    blocks = [
        tuple(
            min(number, math.ceil(largest / c), math.ceil(n / c)) * c
            for n, c in zip(shape, chunk, strict=True)
        )
        for number in range(1, max(math.ceil(largest / c) for c in chunk) + 1)
    ]
    return list(dict.fromkeys(blocks))


def needed(block: Sequence[int], shape: Sequence[int], cost: BlockCost) -> int:
    """Bytes that the blocks in work take, each with its margin."""
    pixels = math.prod(min(b + 2 * MARGIN, n) for b, n in zip(block, shape, strict=True))
    blocks = math.prod(math.ceil(n / b) for n, b in zip(shape, block, strict=True))
    return min(cost.at_once, blocks) * pixels * cost.bytes_per_pixel
