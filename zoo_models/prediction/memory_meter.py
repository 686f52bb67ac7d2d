"""How much memory the network takes: of this process, or of a GPU.

What counts is the growth from before the first tile to the peak. On Linux the kernel's record of
the peak is set back before each tile; elsewhere the record of the whole life of the process must
grow with each tile, or nothing is known and it is an error.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Protocol

import psutil
import torch

from zoo_models.errors import InputError

GPU_SHARE = 0.8
"""Of the GPU's free memory that the network may take."""


class Meter(Protocol):
    def begin(self) -> None: ...
    def before_tile(self) -> None: ...
    def peak(self) -> int: ...
    def free(self) -> int | None: ...


def meter_of(device: str) -> Meter:
    """Where the engine's memory is, and how to ask for it."""
    kind = torch.device(device.split(",")[0]).type
    return _GpuMemory(device.split(",")[0]) if kind == "cuda" else _ProcessMemory()


class _ProcessMemory:
    """The growth of this process."""

    def begin(self) -> None:
        give_back()
        self._base = resident()

    def before_tile(self) -> None:
        give_back()  # what smaller tiles left behind is not the larger tile's
        self._known = 0 if _forget_peak() else _highest()

    def peak(self) -> int:
        highest = _highest()
        if highest <= self._known:
            raise InputError(
                "The memory of the network cannot be measured here, as the process held more "
                "before; give the size of the tiles with --tile."
            )
        return highest - self._base

    def free(self) -> None:
        return None


class _GpuMemory:
    """The growth of what is taken on a GPU; runtimes keep what they took for the next tile."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def begin(self) -> None:
        torch.cuda.empty_cache()
        self._base = self._free()

    def before_tile(self) -> None:
        pass

    def peak(self) -> int:
        return self._base - self._free()

    def free(self) -> int:
        torch.cuda.empty_cache()
        return int(GPU_SHARE * self._base)

    def _free(self) -> int:
        torch.cuda.synchronize(self._device)
        return torch.cuda.mem_get_info(self._device)[0]


def resident() -> int:
    """Bytes that this process holds now."""
    held: int = psutil.Process().memory_info().rss
    return held


def _highest() -> int:
    """The most bytes that this process has held."""
    if sys.platform == "win32":
        highest: int = psutil.Process().memory_info().peak_wset
        return highest
    import resource

    try:  # the other record of the peak is never set back
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(text.split()[1]) * 1024 for text in lines if text.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> bool:
    """Set the kernel's record of the peak back to what is held now; False where it does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def give_back() -> None:
    """Let the C library hand what is free back to the system, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform != "win32" else None
    if trim is not None:
        trim(0)
