"""The memory of this process: what it holds, and the most that it held since it was asked."""

from __future__ import annotations

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
