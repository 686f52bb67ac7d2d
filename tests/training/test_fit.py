"""A run writes a checkpoint that rebuilds its network; a cut run goes on as if it were not cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.config import TrainingConfig, load_config
from training.fit import fit
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import OutputExistsError


def with_steps(config: TrainingConfig, steps: int) -> TrainingConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"max_steps": steps})})


def test_a_run_leaves_a_checkpoint_that_needs_no_training_code(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file)
    checkpoint = Checkpoint.load(fit(config, tmp_path / "run"))
    geometry = checkpoint.geometry
    x = torch.rand(1, 1, *geometry.minimum)
    with torch.no_grad():
        assert checkpoint.network()(x).shape == (1, 4, *geometry.minimum)
    assert checkpoint.provenance["seed"] == 3
    assert 0 <= checkpoint.provenance["validation"]["val/ap50"] <= 1
    assert str(tmp_path) not in str(checkpoint.provenance)
    assert (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").is_file()


def test_a_run_is_not_overwritten_unasked(config_file: Path, tmp_path: Path) -> None:
    config = with_steps(load_config(config_file), 2)
    fit(config, tmp_path / "run")
    with pytest.raises(OutputExistsError, match="--resume"):
        fit(config, tmp_path / "run")


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file)
    fit(config, tmp_path / "whole")
    fit(with_steps(config, 2), tmp_path / "cut")
    fit(config, tmp_path / "cut", resume=True)
    whole, cut = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("whole", "cut")
    )
    for name, weight in whole.items():
        assert torch.equal(weight, cut[name]), name
