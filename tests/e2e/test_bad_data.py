"""Labels, configurations and data folders that do not fit: one line of what is wrong.

Exit code 2, and nothing written or half-written: `refused` looks at the folder afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.e2e.conftest import (
    BAD_IMAGES,
    GREY,
    Chain,
    assert_says,
    bad_images,
    refused,
    truncated,
)
from tests.training.conftest import CONFIG


@pytest.fixture
def labels(folder: Path) -> Path:
    path = folder / "labels.tif"
    tifffile.imwrite(path, (GREY > 0).astype(np.uint16))
    return path


@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_path_of_labels_is_refused(labels: Path, folder: Path, place: int) -> None:
    arguments: list[object] = [labels, labels]
    arguments[place] = "label.tif"
    line = refused("evaluate", *arguments, unchanged=folder)
    assert_says(line, "label.tif", "does not exist", "did you mean labels.tif")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.ones((48, 63), np.uint16), ("(48, 63)", "(48, 64)", "expected equal shapes")),
        (np.ones((2, 48, 64), np.uint16), ("(2, 48, 64)", "(48, 64)", "expected equal shapes")),
        (np.full((48, 64), 0.5, np.float32), ("fractions", "expected whole numbers")),
        (np.full((48, 64), -1, np.int16), ("-1", "expected 0")),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: Path, folder: Path, other: np.ndarray, words: tuple[str, ...]
) -> None:
    tifffile.imwrite(folder / "other.tif", other)
    line = refused("evaluate", "other.tif", labels, "--json", unchanged=folder)
    assert_says(line, "other.tif", *words)


def test_truncated_labels_are_refused(labels: Path, folder: Path) -> None:
    truncated(folder / "cut.tif")
    assert_says(refused("evaluate", "cut.tif", labels, unchanged=folder), "cannot be read")


def test_folders_that_do_not_pair_up_are_refused(labels: Path, data: Path, folder: Path) -> None:
    (folder / "found").mkdir()
    (folder / "found" / "a_labels.tif").write_bytes(labels.read_bytes())
    line = refused("evaluate", "found", data / "labels", unchanged=folder)
    assert_says(line, "without partner (b)", "expected one prediction")
    line = refused("evaluate", "found", labels, unchanged=folder)
    assert_says(line, "a folder", "a file", "expected two files or two folders")


def test_an_empty_folder_of_labels_is_refused(data: Path, folder: Path) -> None:
    (folder / "found").mkdir()
    line = refused("evaluate", "found", data / "labels", unchanged=folder)
    assert_says(line, "found", "without images")


@pytest.fixture
def config(data: Path) -> Path:
    """A configuration of a run that must not begin: nothing may be written."""
    path = data.parent / "config.toml"
    path.write_text(CONFIG)
    return path


def test_a_wrong_path_of_a_configuration_is_refused(folder: Path) -> None:
    line = refused("train", "no.toml", unchanged=folder)
    assert_says(line, "no.toml", "no such file", "expected a training configuration")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 3", "seed = ", ("not a TOML file",)),
        ("max_steps = 4", "", ("run.max_steps", "required")),
        ("seed = 3", "sead = 3", ("sead",)),
        ("output = 36", "output = 2", ("not larger than the period 2", "use at least")),
        ("output = 36", "output = 37", ("no output size", "use")),
        ('folder = "data"', 'folder = "date"', ("date", "no splits.json", "expected")),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    config: Path, folder: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert old in CONFIG
    config.write_text(CONFIG.replace(old, new))
    assert_says(refused("train", config, "-o", "run", unchanged=folder), *words)


def test_a_wrong_path_of_the_data_is_refused(config: Path, folder: Path) -> None:
    line = refused("train", config, "--data", "nowhere", unchanged=folder)
    assert_says(line, "nowhere", "no splits.json", "images/, labels/")


def test_training_labels_that_do_not_fit_their_images_are_refused(
    config: Path, data: Path, folder: Path
) -> None:
    tifffile.imwrite(data / "labels" / "a.tif", np.ones((48, 63), np.uint16))
    line = refused("train", config, "-o", "run", unchanged=folder)
    assert_says(line, "a.tif", "(48, 63)", "expected (48, 64)")


@bad_images
def test_a_bad_training_image_is_refused(
    config: Path, data: Path, folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(data / "images" / "b.tif")  # of the validation split
    line = refused("train", config, "-o", "run", unchanged=folder)
    assert_says(line, "b.tif", *BAD_IMAGES[spoil][:2])


def test_a_missing_training_file_is_refused(config: Path, data: Path, folder: Path) -> None:
    (data / "labels" / "a.tif").unlink()
    line = refused("train", config, "-o", "run", unchanged=folder)
    assert_says(line, "no file", "splits.json names it", "add the file")


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": ["a"]}, ("no split 'val'", "found train")),
        ({"train": [], "val": ["b"]}, ("'train' is empty",)),
        (["a", "b"], ("no split 'train'", "found none")),
    ],
)
def test_missing_splits_are_refused(
    config: Path, data: Path, folder: Path, splits: object, words: tuple[str, ...]
) -> None:
    (data / "splits.json").write_text(json.dumps(splits))
    assert_says(refused("train", config, "-o", "run", unchanged=folder), "splits.json", *words)


def test_a_wrong_checkpoint_to_start_from_is_refused(
    config: Path, chain: Chain, folder: Path
) -> None:
    line = refused("train", config, "-o", "run", "--init", "no.safetensors", unchanged=folder)
    assert_says(line, "no.safetensors", "no such file", "expected a checkpoint")
    config.write_text(CONFIG.replace("width = 4", "width = 6"))
    line = refused("train", config, "-o", "run", "--init", chain.checkpoint, unchanged=folder)
    assert_says(line, str(chain.checkpoint))


def test_an_existing_run_is_not_replaced_unasked(chain: Chain) -> None:
    run_folder = chain.checkpoint.parent
    line = refused("train", chain.config, "-o", run_folder, unchanged=run_folder)
    assert_says(line, "holds a run already", "--resume", "--overwrite", "--out")
