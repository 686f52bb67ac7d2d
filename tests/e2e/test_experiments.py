"""Declared experiments and chosen settings, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Chain, run
from training.experiments import spoco
from training.experiments.shift_equivariance import suite as shift_suite
from training.experiments.shift_equivariance.suite import EXPERIMENTS
from training.experiments.suite import Suite
from zoo_models.checkpoint import Checkpoint

TRIED = "\n[clusterer.tried]\nmin_size = [5, 20]\n"


def test_settings_are_chosen_after_training_and_the_checkpoint_can_be_exported(
    chain: Chain, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(chain.config.read_text() + TRIED)
    command = ("tune", chain.checkpoint.parent, config, "-o", "tuned.safetensors")
    outcome = run(*command, "--data", chain.data)
    assert outcome.code == 0, outcome.err
    assert "min_size = " in outcome.out
    assert "on 1 validation images" in outcome.out
    assert Checkpoint.load(Path("tuned.safetensors")).clusterer.settings["min_size"] in (5, 20)
    assert "tuned.safetensors" in run(*command, "--data", chain.data).error  # not overwritten
    assert "spread" not in outcome.out
    config.write_text(config.read_text() + "\n[clusterer]\nspread = true\n")
    again = run(*command, "--data", chain.data, "--overwrite")
    assert "with the background's spread: radius is in its standard deviations" in again.out


def test_a_folder_without_a_run_cannot_be_tuned(chain: Chain) -> None:
    outcome = run("tune", chain.data, chain.config, "-o", "tuned.safetensors")
    assert "expected the folder of a training run" in outcome.error


def test_a_ready_checkpoint_is_suited_to_other_images(chain: Chain, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(chain.config.read_text() + TRIED)
    outcome = run("tune", chain.checkpoint, config, "-o", "mine.safetensors", "--data", chain.data)
    assert outcome.code == 0, outcome.err
    assert "on 1 validation images" in outcome.out
    assert Checkpoint.load(Path("mine.safetensors")).provenance["tuned_on"] == chain.data.name


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nuclei-fluo2d",), "did you mean 'nuclei-fluo-2d'"),
        (("nuclei-fluo-2d",), "nuclei-fluo-2d without CONFIG: expected --data FOLDER"),
        (("nuclei-fluo-2d", "--data", "nowhere"), "splits.json"),
        (("mine.safetensors",), "only a catalog model brings a configuration of its own"),
    ],
)
def test_what_is_missing_for_tuning_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in run("tune", *arguments, "-o", "tuned.safetensors").error


def test_the_suites_and_their_runs_are_listed() -> None:
    outcome = run("experiments", "list")
    assert outcome.code == 0
    for suite in spoco.SUITES.values():
        assert f"{suite.name}: {suite.title}" in outcome.out
        assert all(row.name in outcome.out for row in suite.runs)
    for experiment in EXPERIMENTS.values():
        assert f"  {experiment.name:20s} {experiment.title}\n" in outcome.out


def test_an_experiment_prints_its_table_and_is_read_back_the_second_time(tmp_path: Path) -> None:
    command = ("experiments", "run", "fig5-fixed", "--quick", "-o", tmp_path)
    first = run(*command)
    assert first.code == 0, first.err
    assert "| P | w | steps | loss | upsampling |" in first.out
    assert "- holds: 1 id in 4 x 4 pixels.\n" in first.out
    folder = tmp_path / "shift_equivariance"
    network = folder / "networks" / "quick" / "ones-fixed-seed0" / "checkpoint.safetensors"
    assert Checkpoint.load(network).provenance["setup"]["steps"] == 100
    network.unlink()  # a second run would have to train again
    assert run(*command) == first
    assert not network.exists()


def test_all_runs_every_experiment_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: EXPERIMENTS[name] for name in ("fig5-fixed",)}
    monkeypatch.setattr(shift_suite, "EXPERIMENTS", few)
    whole = run("experiments", "all", "--quick", "-o", tmp_path)
    assert whole.code == 0, whole.err
    assert whole.out.count("### ") == 1
    assert run("experiments", "run", "all", "--quick", "-o", tmp_path) == whole


def test_a_suite_is_run_and_gives_a_table(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    known = spoco.SUITES["dsb2018_fluo"]
    tiny = {
        "data.folder": chain.data.name,
        "network": {"width": 4, "max_width": 8, "levels": 1, "convolutions": 1},
        "patch": {"output": 36, "batch": 2},
        "run": {"max_steps": 2, "epoch_steps": 2, "workers": 0},
        "clusterer.tried": {},
    }
    rows = tuple(
        type(row)(row.name, row.title, {**row.changes, **tiny}) for row in known.select(["full"])
    )
    monkeypatch.setitem(spoco.SUITES, known.name, Suite(known.name, known.title, rows))
    command = ("experiments", "run", known.name, "--data", chain.data.parent, "--split", "test")
    outcome = run(*command, "--steps", 3)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1].startswith("| SPOCO, full supervision | 0 | test | ")
    assert outcome.out.splitlines()[-1].split(" | ")[-2] == "3"
    assert Path("runs", known.name, "full-seed0", "result-test.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("dsb2018",), "No suite 'dsb2018'; expected one of dsb2018_fluo"),
        (("dsb2018_fluo", "--only", "huge"), "no run 'huge'; expected full, "),
        (("dsb2018_fluo", "--only", "full"), "splits.json"),
        (("dsb2018_fluo", "--quick"), "has no --quick"),
        (("fig2a", "--only", "full"), "options of suites, and fig2a is an experiment"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in run("experiments", "run", *arguments, "--data", "nowhere").error
