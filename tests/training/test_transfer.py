"""Transfer: a run starts from another one's weights, a tenth of the rate, and says so for good."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import TrainingConfig, load_config
from training.fit import fit
from training.module import EmbeddingModule
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import CheckpointError, ConfigError


@pytest.fixture
def source(config_file: Path) -> Path:
    """A trained checkpoint beside the configuration, under a name of its own."""
    config = load_config(config_file)
    short = config.model_copy(update={"run": config.run.model_copy(update={"max_steps": 2})})
    trained = fit(short, config_file.parent / "first")
    return trained.rename(config_file.parent / "source.safetensors")


@pytest.fixture
def target_file(config_file: Path, source: Path) -> Path:
    path = config_file.parent / "target.toml"
    text = (
        config_file.read_text().replace('"discs"', '"more-discs"').replace("seed = 3", "seed = 8")
    )
    path.write_text(text + f'\n[transfer]\ninit = "{source.name}"\n\n[optimiser]\nlr = 5e-3\n')
    return path


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, torch.Tensor], float]]:
    """Weights and learning rate of every run at its first step, filled while runs start."""
    seen: list[tuple[dict[str, torch.Tensor], float]] = []

    def note(module: EmbeddingModule) -> None:
        weights = {k: v.clone() for k, v in module.network.state_dict().items()}
        seen.append((weights, module.trainer.optimizers[0].param_groups[0]["lr"]))

    monkeypatch.setattr(EmbeddingModule, "on_train_start", note)
    return seen


def test_a_run_starts_from_the_weights_of_the_source_at_a_tenth_of_the_rate(
    target_file: Path, source: Path, tmp_path: Path, starts: list[Any]
) -> None:
    written = Checkpoint.load(fit(load_config(target_file), tmp_path / "run"))
    (weights, rate) = starts[0]
    for name, weight in Checkpoint.load(source).weights.items():
        assert torch.equal(weights[name], weight), name
    assert rate == pytest.approx(5e-4)
    assert written.provenance["config"]["transfer"] == {
        "init": "source.safetensors",
        "name": "discs",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "lr_factor": 0.1,
    }
    assert written.provenance["config"]["name"] == "more-discs"
    assert str(tmp_path) not in str(written.provenance)
    page = (tmp_path / "run" / "index.html").read_text()
    assert hashlib.sha256(source.read_bytes()).hexdigest() in page
    assert str(tmp_path) not in page


def test_the_teacher_starts_from_the_source_too(
    target_file: Path, source: Path, tmp_path: Path
) -> None:
    target_file.write_text(target_file.read_text() + "\n[supervision]\nfraction = 0.5\n")
    module = EmbeddingModule(load_config(target_file), ())
    assert module.config.transfer is not None
    module.start_from(module.config.transfer)
    assert module.teacher is not None
    x = torch.rand(1, 1, 44, 44)
    module.eval()
    with torch.no_grad():
        assert torch.equal(module.teacher(x, module.valid), module.valid(x))


def test_from_outside_the_rate_is_the_configurations_unless_it_has_a_transfer_section(
    config_file: Path, target_file: Path
) -> None:
    other = Path("somewhere/other.safetensors")
    plain = load_config(config_file, init=other)
    assert plain.transfer is not None
    assert (plain.transfer.init, plain.transfer.lr_factor) == (str(other), 1.0)
    assert plain.learning_rate == plain.optimiser.lr
    declared = load_config(target_file, init=other)
    assert declared.transfer is not None
    assert declared.transfer.init == str(other)
    assert declared.learning_rate == pytest.approx(declared.optimiser.lr / 10)


def test_a_catalog_model_is_named_without_a_path_unless_a_file_has_its_name(
    target_file: Path,
) -> None:
    name = "nuclei-fluo-2d"
    target_file.write_text(target_file.read_text().replace("source.safetensors", name))
    found = load_config(target_file).transfer
    assert found is not None
    assert Path(found.init) == find_model(name).checkpoint
    own = target_file.with_name(name)
    own.write_bytes(b"")
    found = load_config(target_file).transfer
    assert found is not None
    assert Path(found.init) == own


def with_steps(config: TrainingConfig, steps: int) -> TrainingConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"max_steps": steps})})


def test_a_resumed_run_goes_on_without_its_source_and_still_names_it(
    target_file: Path, source: Path, tmp_path: Path
) -> None:
    config = load_config(target_file)
    whole = Checkpoint.load(fit(config, tmp_path / "whole"))
    fit(with_steps(config, 2), tmp_path / "cut")
    source.unlink()
    fit(config, tmp_path / "cut", resume=True)
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("whole", "cut")
    ]
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name
    cut = Checkpoint.load(tmp_path / "cut" / "checkpoint.safetensors")
    assert cut.provenance["config"]["transfer"] == whole.provenance["config"]["transfer"]


def test_a_run_from_random_weights_does_not_become_a_transfer_by_resuming(
    config_file: Path, target_file: Path, tmp_path: Path
) -> None:
    fit(with_steps(load_config(config_file), 2), tmp_path / "run")
    with pytest.raises(ConfigError, match="began with random weights"):
        fit(load_config(target_file), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lr_factor", "lr_factor = 0", "greater than 0"),
        ("init", "start = 1", r"transfer\.init: .*transfer\.start"),
    ],
)
def test_a_section_that_cannot_work_is_refused(
    target_file: Path, old: str, new: str, words: str
) -> None:
    text = target_file.read_text()
    line = 'init = "source.safetensors"'
    text = text.replace(line, new if old == "init" else f"{line}\n{new}")
    target_file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(target_file)


def test_a_source_that_is_missing_or_of_another_network_is_refused(
    target_file: Path, source: Path, tmp_path: Path
) -> None:
    target_file.write_text(target_file.read_text().replace("width = 4", "width = 6"))
    with pytest.raises(CheckpointError, match="do not fit the network"):
        fit(load_config(target_file), tmp_path / "run")
    source.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        fit(load_config(target_file), tmp_path / "run")
    assert not (tmp_path / "run").exists()
