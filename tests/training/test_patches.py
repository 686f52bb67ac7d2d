"""Data folders are checked whole, and patches are the same for the same number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from training.config import load_config
from training.datasets import Sample, read_data
from training.patches import EpochSampler, Patches, _mirrored, at_least_half
from training.sections import DataSection, Split
from zoo_models.errors import ImageError

DATA = DataSection(folder="", gain=0.01, offset=0.5)


def samples_in(folder: Path, split: Split = "train") -> tuple[Sample, ...]:
    return read_data(DATA.model_copy(update={"folder": str(folder)}), split, channels=1)


def test_images_are_normalised_by_the_fixed_constants(data_folder: Path) -> None:
    raw = tifffile.imread(data_folder / "images" / "a.tif")
    sample = samples_in(data_folder)[0]
    np.testing.assert_allclose(sample.image[0], raw * 0.01 + 0.5, rtol=1e-6)
    assert sample.labels.dtype == np.int32


def test_all_unfit_files_are_named_in_one_error(data_folder: Path) -> None:
    tifffile.imwrite(data_folder / "labels" / "a.tif", np.zeros((9, 9), np.uint16))
    (data_folder / "images" / "b.tif").unlink()
    with pytest.raises(ImageError, match=r"a\.tif: labels of shape \(9, 9\).*\| .*b: no file"):
        samples_in(data_folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [('{"train": []}', "is empty"), ("{}", "no split 'train'"), ("{", "not a JSON file")],
)
def test_a_useless_splits_file_is_refused(data_folder: Path, content: str, complaint: str) -> None:
    (data_folder / "splits.json").write_text(content)
    with pytest.raises(ImageError, match=complaint):
        samples_in(data_folder)


def test_a_folder_without_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no splits\.json"):
        samples_in(tmp_path)


def test_patches_have_the_windows_of_the_network_and_hold_an_instance(config_file: Path) -> None:
    config = load_config(config_file)
    patches = Patches(samples_in(config_file.parent / "data"), config)
    for number in range(20):
        image, labels = patches[number]
        assert image.shape == (1, 44, 44)
        assert labels.shape == (36, 36)
        assert image.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert len(labels.unique()) > 1


def test_the_same_number_gives_the_same_patch_and_another_one_another(config_file: Path) -> None:
    config = load_config(config_file)
    patches = Patches(samples_in(config_file.parent / "data"), config)
    first, again, other = patches[5], patches[5], patches[6]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_labels_stay_on_their_pixels_through_the_augmentation(config_file: Path) -> None:
    """Discs are brighter than the background by 0.6; so they must be after every warp."""
    config = load_config(config_file)
    patches = Patches(samples_in(config_file.parent / "data"), config)
    for number in range(20):
        image, labels = patches[number]
        inner = image[0, 4:-4, 4:-4]
        background = labels == labels.flatten().mode().values
        assert inner[~background].mean() > inner[background].mean() + 0.15


def test_a_mirrored_copy_away_from_the_border_is_another_instance() -> None:
    labels = np.zeros((10, 10), np.int32)
    labels[0:2, 0:2], labels[4:6, 4:6] = 1, 2
    image = np.zeros((1, 10, 10), np.float32)
    _, wide = _mirrored(Sample("s", image, labels), (8, 8), (10, 10), reach=(0, 0))
    assert (wide[8:18, 8:18] == labels).all()
    assert wide[7, 8] == 1  # touches the border: goes on in the mirror
    assert len(np.unique(wide[wide > 0])) > 2
    assert (wide == 2).sum() == 4


def test_epochs_count_on_from_where_a_cut_run_ended() -> None:
    sampler = EpochSampler(3, start=6)
    assert list(sampler) == [6, 7, 8]
    assert list(sampler) == [9, 10, 11]


def test_sparse_patches_come_from_images_with_a_labeled_instance(config_file: Path) -> None:
    text = config_file.read_text()
    first, second = samples_in(config_file.parent / "data")
    samples = (replace(first, labels=np.zeros_like(first.labels)), second)
    shares = {}
    for section in ("", "[supervision]\ninstances = 5\n"):
        config_file.write_text(f"{text}\n{section}")
        patches = Patches(samples, load_config(config_file))
        shares[section] = np.mean([patches[number][1].any() for number in range(30)])
    full, sparse = shares.values()
    assert sparse == 1
    assert full < 0.9


PSEUDO = "[supervision]\ninstances = 1\npseudo_background = true\n"


def test_half_of_the_patches_with_a_pseudo_background_are_of_images_with_an_object(
    config_file: Path,
) -> None:
    config_file.write_text(f"{config_file.read_text()}\n{PSEUDO}")
    first, second = samples_in(config_file.parent / "data")
    nothing_else = [replace(first, labels=np.ones_like(first.labels))] * 9
    patches = Patches([*nothing_else, second], load_config(config_file))
    assert patches.probabilities[:9] == pytest.approx([0.5 / 9] * 9)
    assert patches.probabilities[9] == pytest.approx(0.5)


def test_what_is_drawn_often_enough_keeps_its_share_and_what_is_not_there_gets_none() -> None:
    given = np.array([0.5, 0.2, 0.2, 0.1])
    for chosen in ([True, False, False, False], [False] * 4, [True] * 4):
        assert at_least_half(given, np.array(chosen)) is given
    raised = at_least_half(given, np.array([False, True, False, True]))
    assert raised == pytest.approx([0.5 * 5 / 7, 0.5 * 2 / 3, 0.5 * 2 / 7, 0.5 * 1 / 3])
