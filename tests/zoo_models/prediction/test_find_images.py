"""Paths on a command line to image files."""

from pathlib import Path

import pytest

from zoo_models.errors import ImageError
from zoo_models.prediction.images import find_images


def test_folders_become_their_images_sorted_and_each_once(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.png", "c.jpg", "._a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.tif").mkdir()
    found = find_images([tmp_path / "c.jpg", tmp_path])
    assert [path.name for path in found] == ["c.jpg", "a.png", "b.TIF"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"folder without images.*\.tif"):
        find_images([tmp_path])


def test_a_path_that_does_not_exist_is_refused_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ImageError, match=r"image: does not exist.*did you mean images"):
        find_images([tmp_path / "image"])


def test_no_path_at_all_is_refused() -> None:
    with pytest.raises(ImageError, match="no image path"):
        find_images([])
