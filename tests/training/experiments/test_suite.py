"""Experiments are declared, run once, and go on where they were."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config import TrainingConfig
from training.experiments import suite as suite_module
from training.experiments.spoco import SUITES
from training.experiments.suite import Place, Run, Suite, configuration, markdown, perform
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import InputError

TINY: dict[str, Any] = {
    "network": {"embedding_dim": 4, "width": 4, "max_width": 8, "levels": 1, "convolutions": 1},
    "patch": {"output": 36, "batch": 2},
    "run": {"max_steps": 2, "epoch_steps": 2, "workers": 0},
    "clusterer.tried": {"min_size": [5, 20]},
    "data.folder": "data",
}
DISCS = Suite("dsb2018_fluo", "discs", (Run("tiny", "a tiny run", TINY),))


@pytest.fixture
def place(data_folder: Path, tmp_path: Path) -> Place:
    return Place(data_folder.parent, tmp_path / "runs")


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda s: s.name)
def test_every_declared_run_is_a_configuration_of_its_own(suite: Suite, tmp_path: Path) -> None:
    configs = [configuration(suite, run, Place(tmp_path, tmp_path)) for run in suite.runs]
    texts = [c.model_dump_json(exclude={"name"}) for c in configs]
    assert len(set(texts)) == len(texts)
    assert len({run.name for run in suite.runs}) == len(suite.runs)
    for run in suite.runs:
        if run.source is not None and "/" in run.source:
            source, name = run.source.split("/")
            assert SUITES[source].select([name])


@pytest.mark.parametrize(
    ("suite", "run"),
    [(s, r) for s in SUITES.values() for r in s.runs if r.source and "/" not in r.source],
    ids=lambda declared: declared.name,
)
def test_a_run_from_a_catalog_model_has_its_network(suite: Suite, run: Run, tmp_path: Path) -> None:
    model = find_model(str(run.source))
    config = configuration(suite, run, Place(tmp_path, tmp_path))
    assert config.transfer is not None
    assert Path(config.transfer.init) == model.checkpoint
    assert config.network_kwargs == Checkpoint.load(model.checkpoint).kwargs


def test_a_change_is_a_dotted_name_and_none_takes_a_value_out(tmp_path: Path) -> None:
    path = Path(suite_module.__file__).parent / "configs" / "dsb2018_fluo.toml"
    plain = TrainingConfig.model_validate(tomllib.loads(path.read_text()))
    changes = {"teacher": None, "loss.neighbourhood": None, "loss.t": 0.25, "supervision.seed": 1}
    run = Run("changed", "changed", changes)
    changed = configuration(
        Suite("dsb2018_fluo", "", (run,)), run, Place(tmp_path, tmp_path, seed=7)
    )
    assert (changed.teacher, changed.loss.neighbourhood, changed.loss.t) == (None, None, 0.25)
    assert (changed.seed, changed.supervision and changed.supervision.seed) == (7, 7)
    assert changed.network == plain.network
    assert plain.teacher is not None


def test_a_run_leaves_its_numbers_and_is_not_done_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = perform(DISCS, DISCS.runs[0], place)
    assert first.scores.images == 1
    assert first.settings["min_size"] in (5, 20)
    monkeypatch.setattr(suite_module, "fit", None)  # a second training would call it
    assert perform(DISCS, DISCS.runs[0], place) == first
    on_train = perform(DISCS, DISCS.runs[0], place, split="train")
    assert (on_train.scores.images, on_train.seconds) == (2, first.seconds)


def test_a_cut_run_goes_on_and_its_time_counts_whole(place: Place) -> None:
    folder = place.folder("dsb2018_fluo", "tiny")
    perform(DISCS, DISCS.runs[0], place)
    for name in ("result-val.json", "tuned.safetensors"):
        (folder / name).unlink()
    longer = Run("tiny", "a tiny run", {**TINY, "run": {**TINY["run"], "max_steps": 4}})
    result = perform(DISCS, longer, place)
    seconds = json.loads((folder / "seconds.json").read_text())
    assert result.steps == 4
    assert len(seconds) == 2
    assert result.seconds == sum(seconds)


def test_a_result_of_another_length_is_not_taken_for_this_one(place: Place) -> None:
    perform(DISCS, DISCS.runs[0], place)
    with pytest.raises(InputError, match="the result of 2 steps, expected 4"):
        perform(DISCS, DISCS.runs[0], replace(place, steps=4))


def test_a_transfer_starts_from_the_source_at_a_tenth_of_the_rate(place: Place) -> None:
    perform(DISCS, DISCS.runs[0], place)
    run = Run("next", "next", TINY, source="dsb2018_fluo/tiny")
    config = configuration(DISCS, run, place)
    assert config.learning_rate == pytest.approx(config.optimiser.lr / 10)
    assert config.transfer is not None
    assert Path(config.transfer.init).is_file()


def test_the_table_has_a_row_for_each_result(place: Place) -> None:
    result = perform(DISCS, DISCS.runs[0], place)
    *_, row = markdown([result]).splitlines()
    assert row.startswith(f"| a tiny run | 0 | val | {result.scores.ap50:.3f} | ")


def test_an_unknown_run_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no run 'huge'; expected tiny\."):
        DISCS.select(["huge"])
