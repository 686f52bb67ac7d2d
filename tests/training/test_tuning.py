"""The settings of a clusterer are chosen on images, for the last weights of a run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import discs
from training import tuning
from training.config import load_config
from training.fit import LAST, fit
from training.tuning import (
    Embedded,
    background,
    scores_of,
    spread,
    tune,
    tune_checkpoint,
    tuned,
    with_last_weights,
)
from zoo_models.checkpoint import Checkpoint, ClustererSettings, Normalisation
from zoo_models.errors import CheckpointError, ConfigError
from zoo_models.metrics import aggregate, score
from zoo_models.postprocessing import build_clusterer

TRIED: dict[str, list[float]] = {"radius": [0.5, 2.0, 9.0], "min_size": [1, 15, 400]}


@pytest.fixture
def run_dir(config_file: Path, tmp_path: Path) -> Path:
    fit(load_config(config_file), tmp_path / "run")
    return tmp_path / "run"


def embeddings_of_discs(seed: int) -> Embedded:
    """Discs at 4 on one axis, background near (0, 3), a few specks that only min_size removes."""
    truth = discs((48, 64), seed)[1].astype(np.int32)
    speck = np.random.default_rng(seed).random(truth.shape) < 0.01
    values = np.stack([np.where((truth > 0) | speck, 4.0, 0.0), np.where(truth > 0, 0.0, 3.0)])
    return values.astype(np.float32), truth


def test_the_chosen_settings_are_the_best_of_all_that_were_tried(run_dir: Path) -> None:
    checkpoint = Checkpoint.load(run_dir / "checkpoint.safetensors")
    images = [embeddings_of_discs(seed) for seed in (1, 2)]
    best = tuned(checkpoint, images, TRIED)
    place = background(images)
    assert place == pytest.approx([0.0, 3.0], abs=0.1)
    every = []
    for radius, min_size in itertools.product(TRIED["radius"], TRIED["min_size"]):
        settings: dict[str, Any] = {"background": place, "radius": radius, "min_size": min_size}
        clusterer = build_clusterer(ClustererSettings("basin_merging", settings))
        every.append(aggregate([score(clusterer(e), t) for e, t in images]).ap50)
    assert len(set(every)) > 2
    assert best.provenance["validation"]["ap50"] == max(every)
    assert scores_of(best, images).ap50 == max(every)


def test_settings_are_never_worse_than_those_they_started_from(run_dir: Path) -> None:
    images = [embeddings_of_discs(1)]
    start = tuned(Checkpoint.load(run_dir / "checkpoint.safetensors"), images, TRIED)
    again = tuned(start, images, {"radius": [0.5, 9.0], "min_size": [1, 400]})
    assert again.clusterer.settings == start.clusterer.settings
    assert tuned(start, images, {"radius": []}).clusterer == start.clusterer


def on_a_long_cloud(seed: int) -> Embedded:
    """Discs at (0, 2.5); the background runs from (-4, 0) to (4, 0) and back, across the image."""
    truth = discs((48, 64), seed)[1].astype(np.int32)
    wave = np.broadcast_to(4 * np.sin(np.arange(64) * 0.5), truth.shape)
    values = np.stack([np.where(truth > 0, 0.0, wave), np.where(truth > 0, 2.5, 0.0)])
    return values.astype(np.float32), truth


def test_a_background_that_is_a_long_cloud_needs_its_spread(run_dir: Path) -> None:
    checkpoint = Checkpoint.load(run_dir / "checkpoint.safetensors")
    images = [on_a_long_cloud(seed) for seed in (1, 2)]
    tried: dict[str, list[float]] = {"radius": [1.0, 1.5, 2.0, 2.4, 3.0, 3.8, 5.0]}
    without = tuned(checkpoint, images, tried)
    assert without.clusterer.settings.get("spread", []) == []
    assert without.provenance["validation"]["ap50"] < 0.5
    found = tuned(checkpoint, images, tried, with_spread=True)
    assert found.clusterer.settings["spread"] == spread(images)
    assert found.provenance["validation"]["ap50"] == 1


def pixels_of(covariance: np.ndarray, number: int, seed: int) -> Embedded:
    """Background around (1, 2, 3) of the given covariance, and an object of no importance."""
    draw = np.random.default_rng(seed)
    values = draw.multivariate_normal([1, 2, 3], covariance, number).T
    truth = np.zeros((2, number), np.int32)
    truth[1] = 1
    return np.stack([values, np.full_like(values, 50)], axis=1).astype(np.float32), truth


COVARIANCE = np.array([[4.0, 0.6, 0.0], [0.6, 1.0, -0.05], [0.0, -0.05, 0.01]])


def test_distances_in_units_of_the_spread_have_unit_variance_along_every_direction() -> None:
    image = pixels_of(COVARIANCE, 5000, 0)
    matrix = np.array(spread([image], ridge=0)).reshape(3, 3)
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(np.cov(matrix @ image[0][:, 0]), np.eye(3), atol=2e-3)
    wide = np.array(spread([image], ridge=0.1)).reshape(3, 3)
    expected = np.cov(image[0][:, 0]) + 0.1 * np.eye(3)
    np.testing.assert_allclose(np.linalg.inv(wide @ wide), expected, atol=5e-3)


def test_every_image_counts_the_same_however_much_background_it_has() -> None:
    few, many = pixels_of(COVARIANCE, 500, 0), pixels_of(9 * COVARIANCE, 5000, 1)
    full = np.full((3, 4, 4), 50, np.float32), np.ones((4, 4), np.int32)
    matrix = np.array(spread([few, many, full], ridge=0)).reshape(3, 3)
    expected = (np.cov(few[0][:, 0]) + np.cov(many[0][:, 0])) / 2
    np.testing.assert_allclose(np.linalg.inv(matrix @ matrix), expected, rtol=0.03, atol=0.02)
    assert spread([full]) == []


def test_what_is_not_tried_stays_as_the_run_had_it(run_dir: Path) -> None:
    checkpoint = Checkpoint.load(run_dir / "checkpoint.safetensors")
    images = [embeddings_of_discs(1)]
    same = tuned(checkpoint, images, {})
    assert {**same.clusterer.settings, "background": 0} == {
        **checkpoint.clusterer.settings,
        "background": 0,
    }
    assert same.provenance["validation"]["images"] == 1


def test_a_tuned_checkpoint_has_the_weights_of_the_last_step(run_dir: Path) -> None:
    state = torch.load(run_dir / LAST, weights_only=False)
    state["state_dict"] = {k: v + 1 for k, v in state["state_dict"].items()}
    torch.save(state, run_dir / LAST)
    best = Checkpoint.load(run_dir / "checkpoint.safetensors")
    last = with_last_weights(run_dir)
    assert last.provenance["step"] == 4
    for name, weight in last.weights.items():
        assert torch.equal(weight, state["state_dict"][f"network.{name}"])
        assert torch.equal(weight, best.weights[name] + 1)


@pytest.mark.parametrize(
    ("text", "tried"),
    [
        ("", [False]),
        ("[supervision]\nfraction = 0.1", [False, True]),
        ("[supervision]\ninstances = 9\ndense = true", [False]),
        ("[supervision]\nfraction = 0.1\n[clusterer]\nspread = false", [False]),
        ("[clusterer]\nspread = true", [True]),
        ('[supervision]\nfraction = 0.1\n[clusterer]\nname = "mean_shift"', [False]),
    ],
)
def test_the_spread_is_tried_where_the_background_is_unlabeled_or_on_request(
    text: str, tried: list[bool], config_file: Path
) -> None:
    config_file.write_text(f"{config_file.read_text()}\n{text}\n")
    assert list(load_config(config_file).spreads_tried) == tried


@pytest.mark.parametrize("better", [False, True])
def test_with_or_without_the_spread_the_better_one_on_val_is_kept(
    better: bool, run_dir: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(checkpoint: Checkpoint, *_: Any, with_spread: bool, **__: Any) -> Checkpoint:
        provenance = {"validation": {"ap50": 0.7 if with_spread is better else 0.6}}
        clusterer = ClustererSettings("basin_merging", {"with_spread": with_spread})
        return replace(checkpoint, clusterer=clusterer, provenance=provenance)

    monkeypatch.setattr(tuning, "tuned", scored)
    config_file.write_text(config_file.read_text() + "\n[supervision]\nfraction = 0.5\n")
    chosen = tune(run_dir, load_config(config_file))
    assert chosen.clusterer.settings["with_spread"] is better


def test_a_run_is_tuned_on_its_own_val_split(run_dir: Path, config_file: Path) -> None:
    config_file.write_text(config_file.read_text() + "\n[clusterer.tried]\nmin_size = [5, 20]\n")
    assert "spread" not in tune(run_dir, load_config(config_file)).clusterer.settings
    text = config_file.read_text()
    config_file.write_text(
        text.replace("[clusterer.tried]", "[clusterer]\nspread = true\n[clusterer.tried]")
    )
    chosen = tune(run_dir, load_config(config_file))
    assert chosen.clusterer.settings["min_size"] in (5, 20)
    assert isinstance(chosen.clusterer.settings["min_size"], int)  # as typed, not 5.0
    assert np.size(chosen.clusterer.settings["spread"]) == 4 * 4
    assert chosen.provenance["validation"]["images"] == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the folder of a training run"):
        with_last_weights(tmp_path)


@pytest.fixture
def ready(run_dir: Path) -> Checkpoint:
    """A checkpoint of another data set, with a setting that no configuration here names."""
    checkpoint = Checkpoint.load(run_dir / "checkpoint.safetensors")
    settings = {**checkpoint.clusterer.settings, "solid": 0.7, "min_size": 1}
    return replace(checkpoint, clusterer=ClustererSettings("basin_merging", settings))


def test_a_ready_checkpoint_is_suited_to_other_images_and_keeps_its_weights(
    ready: Checkpoint, config_file: Path
) -> None:
    text = config_file.read_text().replace('"data"', '"other"').replace("width = 4", "width = 8")
    config_file.write_text(text + "\n[clusterer.tried]\nmin_size = [20, 30]\n")
    (config_file.parent / "data").rename(config_file.parent / "other")
    suited = tune_checkpoint(ready, load_config(config_file))
    assert suited.weights is ready.weights
    assert suited.kwargs == ready.kwargs  # and not the width that the configuration names
    assert suited.clusterer.settings["solid"] == 0.7
    assert suited.provenance["tuned_on"] == "other"
    assert suited.provenance["validation"]["images"] == 1
    assert suited.provenance["config"] == ready.provenance["config"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", 0.01), ("gain = 0.5", 0.5)],
    ids=["unnamed", "named"],
)
def test_a_gain_that_the_configuration_names_replaces_the_checkpoints(
    line: str, expected: float, ready: Checkpoint, config_file: Path
) -> None:
    config_file.write_text(config_file.read_text().replace("gain = 0.01", line))
    suited = tune_checkpoint(ready, load_config(config_file))
    assert suited.normalisation == Normalisation(expected, 0.0)


def test_a_spread_is_measured_anew_on_the_other_images_or_dropped_on_request(
    ready: Checkpoint, config_file: Path
) -> None:
    old = [float(v) for v in np.eye(4).ravel()]
    settings = {**ready.clusterer.settings, "spread": old}
    with_spread = replace(ready, clusterer=ClustererSettings("basin_merging", settings))
    suited = tune_checkpoint(with_spread, load_config(config_file)).clusterer.settings
    assert np.size(suited["spread"]) == 4 * 4
    assert suited["spread"] != old
    config_file.write_text(config_file.read_text() + "\n[clusterer]\nspread = false\n")
    suited = tune_checkpoint(with_spread, load_config(config_file)).clusterer.settings
    assert "spread" not in suited


def test_another_method_starts_from_the_margins_of_the_checkpoint(
    ready: Checkpoint, config_file: Path
) -> None:
    config_file.write_text(config_file.read_text() + '\n[clusterer]\nname = "mutex_watershed"\n')
    suited = tune_checkpoint(replace(ready, delta_d=1.25), load_config(config_file)).clusterer
    assert suited.name == "mutex_watershed"
    assert suited.settings["delta_d"] == 1.25
    assert "solid" not in suited.settings


def test_a_checkpoint_for_other_axes_is_refused(ready: Checkpoint, config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.axes is 'yx'.*with the axes 'zyx'"):
        tune_checkpoint(replace(ready, axes="zyx"), load_config(config_file))
