"""The memory of this process: told by psutil, or by the kernel's own record, and both agree."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from zoo_models.errors import InputError
from zoo_models.prediction import memory_meter
from zoo_models.prediction.memory_meter import meter_of, resident
from zoo_models.prediction.plan import half_the_memory

MIB = 2**20


def test_this_machine_tells_its_memory() -> None:
    assert 0 < resident() < 2 * half_the_memory()


def test_an_array_that_is_filled_is_seen_and_its_end_too() -> None:
    meter = meter_of("cpu")
    meter.begin()
    before = resident()
    meter.before_tile()
    array = np.ones(64 * MIB, np.uint8)
    assert 60 * MIB < resident() - before < 80 * MIB
    del array
    assert 60 * MIB < meter.peak() < 80 * MIB
    if sys.platform == "linux":  # elsewhere the peak is not set back
        meter.before_tile()
        np.ones(16 * MIB, np.uint8).sum()
        assert 14 * MIB < meter.peak() < 32 * MIB


@pytest.mark.skipif(sys.platform == "win32", reason="resource is of Unix")
def test_the_peak_is_that_of_the_systems_other_record() -> None:
    """In a process of its own, as both must be of its whole life."""
    code = (
        "import numpy, resource, sys; from zoo_models.prediction.memory_meter import _highest;"
        "numpy.ones(2**27, 'uint8'); unit = 1 if sys.platform == 'darwin' else 1024;"
        "print(_highest() / (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.98 < float(run.stdout) < 1.02


def test_where_the_record_cannot_be_set_back_a_smaller_tile_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_meter, "_forget_peak", lambda: False)
    meter = meter_of("cpu")
    np.ones(256 * MIB, np.uint8).sum()
    meter.begin()
    meter.before_tile()
    with pytest.raises(InputError, match=r"cannot be measured here.*--tile"):
        meter.peak()
