"""A model's background in the place of labels, from the masks to a resumed run."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training import embedding, pseudo_background
from training.config import TrainingConfig, load_config
from training.datasets import Sample
from training.fit import fit
from training.pseudo_background import FILE, find_background, sure_background, with_background
from zoo_models.checkpoint import Checkpoint, ClustererSettings, Normalisation
from zoo_models.errors import ConfigError

SECTION = """
[supervision]
fraction = 0.3
pseudo_background = true

[transfer]
init = "first.safetensors"
"""


def drawn(*rows: str) -> np.ndarray:
    """Labels from a drawing: a dot is 0, a letter or digit an instance."""
    return np.array([[0 if c == "." else ord(c) for c in row] for row in rows], np.int32)


def test_the_drawing_in_the_docstring_is_true() -> None:
    labels = drawn(".......", ".AA....", ".AA....", ".......")
    predicted = drawn(".......", ".11..22", ".1...22", ".......")
    expected = drawn("bbbb...", "b..b...", "b..b...", "bbbb...") > 0
    assert np.array_equal(sure_background(predicted, labels, gap=1), expected)


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(9, 11), (4, 6, 7)]),
    gap=st.integers(0, 3),
)
def test_background_is_what_a_loop_over_pixels_finds(
    seed: int, shape: tuple[int, ...], gap: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = (
        np.where(rng.random(shape) < share, rng.integers(1, 4, shape), 0).astype(np.int32)
        for share in (0.03, 0.1)
    )
    with_label = {int(p) for p, k in zip(predicted.flat, labels.flat, strict=True) if k}
    found = sure_background(predicted, labels, gap=gap)
    for place in np.ndindex(shape):
        near = product(*(range(max(0, i - gap), i + gap + 1) for i in place))
        inside = [p for p in near if all(i < n for i, n in zip(p, shape, strict=True))]
        guessed = any(predicted[p] and int(predicted[p]) not in with_label for p in inside)
        expected = not (predicted[place] or labels[place] or guessed)
        assert found[place] == expected


def test_the_background_becomes_one_more_instance() -> None:
    labels = drawn("A..", "...")
    (after,) = with_background(
        [Sample("s", np.zeros((1, 2, 3), np.float32), labels)], [drawn(".bb", "...") > 0]
    )
    assert after.labels.tolist() == [[65, 66, 66], [0, 0, 0]]
    assert after.labels.dtype == np.int32


def bright_is_far(network: Any, image: np.ndarray, grid: Any, **_: Any) -> np.ndarray:
    """Embeddings of a network that has learnt it: the background at 0, discs far from it."""
    return np.repeat(np.where(image[:1] > 0.5, 5.0, 0.0), 4, axis=0).astype(np.float32)


@pytest.fixture
def first_model(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A checkpoint beside the configuration that tells bright discs from the background."""
    monkeypatch.setattr(embedding, "predict_embeddings", bright_is_far)
    written = Checkpoint.load(fit(load_config(config_file), config_file.parent / "first"))
    settings: dict[str, Any] = {"background": [0.0] * 4, "min_size": 5}
    checkpoint = Checkpoint(
        **{**vars(written), "clusterer": ClustererSettings("basin_merging", settings)}
    )
    checkpoint.save(config_file.parent / "first.safetensors")
    return checkpoint


def config_of(config_file: Path, more: str = "", section: str = SECTION) -> TrainingConfig:
    base = config_file.read_text().split("\n[supervision]")[0]
    config_file.write_text(f"{base}\n{section}{more}")
    return load_config(config_file)


def test_a_run_learns_labels_and_background_and_nothing_of_the_rest(
    first_model: Checkpoint, config_file: Path, tmp_path: Path
) -> None:
    config = config_of(config_file)
    assert config.embedding_loss.ignore == 0
    assert config.embedding_loss.unlabeled is None
    assert config.validation_loss.ignore is None
    written = Checkpoint.load(fit(config, tmp_path / "run"))
    assert written.provenance["config"]["supervision"]["pseudo_background"] is True
    with np.load(tmp_path / "run" / FILE) as masks:
        shares = [masks[name].mean() for name in masks.files]
    assert len(shares) == 2
    assert all(0.1 < share < 0.7 for share in shares)
    metrics = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text()
    assert "train/push" in metrics
    assert "unlabeled" not in metrics
    assert "consistency" not in metrics


def test_a_resumed_run_gives_the_same_weights_without_the_first_model(
    first_model: Checkpoint, config_file: Path, tmp_path: Path
) -> None:
    config = config_of(config_file)
    whole = Checkpoint.load(fit(config, tmp_path / "whole"))
    run = config.run.model_copy(update={"max_steps": 2})
    fit(config.model_copy(update={"run": run}), tmp_path / "cut")
    (config_file.parent / "first.safetensors").unlink()
    fit(config, tmp_path / "cut", resume=True)
    last = [torch.load(tmp_path / r / "last.ckpt", weights_only=False) for r in ("whole", "cut")]
    assert last[1]["global_step"] == 4
    for name, weight in last[0]["state_dict"].items():
        assert torch.equal(weight, last[1]["state_dict"][name]), name
    assert whole.provenance["config"]["transfer"]["init"] == "first.safetensors"


def test_a_run_that_began_without_a_background_cannot_go_on_with_one(
    first_model: Checkpoint, config_file: Path, tmp_path: Path
) -> None:
    plain = SECTION.replace("pseudo_background = true\n", "")
    fit(config_of(config_file, section=plain), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"npz: not found; .* leave it out to go on"):
        fit(config_of(config_file), tmp_path / "run", resume=True)


def test_masks_of_other_data_are_refused(tmp_path: Path) -> None:
    pseudo_background.save([np.ones((2, 3), bool)], tmp_path)
    (mask,) = pseudo_background.load(tmp_path, number=1)
    assert mask.all()
    with pytest.raises(ConfigError, match=r"masks of 1 images, but the data have 2"):
        pseudo_background.load(tmp_path, number=2)


def test_a_model_that_sees_no_background_is_refused(
    first_model: Checkpoint, config_file: Path
) -> None:
    bright = Sample("s", np.ones((1, 20, 20), np.float32), np.zeros((20, 20), np.int32))
    with pytest.raises(ConfigError, match=r"sees no background in any of 1 images; .* tune"):
        find_background([bright], first_model, first_model.normalisation, gap=2)


def test_images_of_another_normalisation_are_refused(first_model: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"has gain 1\.0 .* expected the gain 0\.01 "):
        find_background([], first_model, Normalisation(), gap=2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[loss]\nrim = 1.0", r"loss\.rim is 1\.0 with sparse supervision"),
        ("[loss]\nignore = 0", r"loss\.ignore is given with sparse supervision"),
        (
            "[loss]\nadversarial = 1.0\nadversarial_warmup = 1",
            r"loss\.adversarial is given with supervision\.pseudo_background",
        ),
    ],
)
def test_terms_that_the_unknown_pixels_would_mislead_are_refused(
    first_model: Checkpoint, config_file: Path, more: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(config_file, more)


def test_images_with_a_labeled_background_need_no_other(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"is given with dense"):
        config_of(config_file, section=SECTION.replace("pseudo", "dense = true\npseudo"))


def test_a_first_run_has_no_model_that_sees_the_background(
    config_file: Path, tmp_path: Path
) -> None:
    config = config_of(config_file, section=SECTION.split("[transfer]", maxsplit=1)[0])
    with pytest.raises(ConfigError, match=r"needs a model .* --init"):
        fit(config, tmp_path / "run")
