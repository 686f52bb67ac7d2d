"""What a run keeps between its steps is there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from zoo_models.prediction.scratch import ScratchFolder


@given(
    array=st.sampled_from([np.int32, np.int64, np.float32, np.bool_]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    )
)
def test_arrays_come_back_as_they_were(
    array: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = ScratchFolder(tmp_path_factory.mktemp("scratch"))
    scratch["parts/0_0"] = {"plane": array, "none": np.zeros(0)}
    found = scratch["parts/0_0"]
    assert list(found) == ["plane", "none"]
    assert found["plane"].dtype == array.dtype
    np.testing.assert_array_equal(found["plane"], array)


def test_it_is_a_dict_of_what_is_complete(tmp_path: Path) -> None:
    scratch = ScratchFolder(tmp_path)
    scratch["b/1"] = {"x": np.arange(3)}
    scratch["a"] = {}
    assert list(scratch) == ["a", "b/1"]
    assert "b/1" in scratch
    assert "b/2" not in scratch
    assert scratch.pop("b/1")["x"].tolist() == [0, 1, 2]
    assert scratch.pop("b/1", None) is None
    with pytest.raises(KeyError):
        scratch["b/1"]
    with pytest.raises(KeyError):
        del scratch["b/1"]
    assert len(scratch) == 1


def test_a_disk_that_fills_up_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = ScratchFolder(tmp_path)
    scratch["a"] = {"x": np.zeros(1)}

    def full(file: Any, **values: Mapping[str, Any]) -> None:
        file.write(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        scratch["a"] = {"x": np.ones(1)}
    monkeypatch.undo()
    assert scratch["a"]["x"].tolist() == [0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_labels_shrink(tmp_path: Path) -> None:
    scratch = ScratchFolder(tmp_path)
    labels = np.zeros((1000, 1000), np.int32)
    labels[100:200, 300:500] = 7
    scratch["a"] = {"labels": labels}
    assert (tmp_path / "a.npz").stat().st_size < labels.nbytes / 100
