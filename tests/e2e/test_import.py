"""A checkpoint of the authors' code becomes one of ours by a command, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.e2e.conftest import run
from tests.zoo_models.test_old_checkpoints import old_state
from zoo_models.checkpoint import Checkpoint, Normalisation


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "best_checkpoint.pytorch"
    torch.save({"model_state_dict": old_state([8, 16, 32], norm="batch")}, path)
    return path


def test_an_old_checkpoint_is_taken_over_with_the_halo_it_needs(old: Path) -> None:
    out = old.with_name("ours.safetensors")
    done = run("import", old, "-o", out, "--gain", 0.01, "--offset", -1, "--delta-d", 1.5)
    assert (done.code, done.err) == (0, "")
    assert "unet_same: ndim 2, in_channels 1, embedding_dim 5, width 8" in done.out
    assert "period 4, halo 24" in done.out
    assert f"next: spoco-zoo export {out}" in done.out
    found = Checkpoint.load(out)
    assert found.normalisation == Normalisation(0.01, -1.0)
    assert (found.delta_v, found.delta_d) == (0.5, 1.5)
    again = run("import", old, "-o", out, "--gain", 0.01)
    assert "exists already" in again.error
    assert Checkpoint.load(out).delta_d == 1.5


def test_a_group_norm_is_taken_over_for_comparison(tmp_path: Path) -> None:
    torch.save(old_state([8, 16], norm="group", ndim=3), tmp_path / "old.pytorch")
    done = run("import", tmp_path / "old.pytorch", "-o", tmp_path / "a.safetensors", "--gain", 1)
    assert done.code == 0
    assert "for comparison only, export refuses it" in done.out


def test_the_constants_have_to_be_told(old: Path) -> None:
    done = run("import", old, "-o", old.with_name("ours.safetensors"))
    assert done.code == 2
    assert "--gain" in done.err


def test_another_file_is_refused_in_one_line_and_nothing_is_written(old: Path) -> None:
    torch.save({"model_state_dict": {"fc.weight": torch.ones(1)}}, old)
    out = old.with_name("ours.safetensors")
    refused = run("import", old, "-o", out, "--gain", 1)
    assert "found fc.weight, expected encoders.0" in refused.error
    assert not out.exists()
