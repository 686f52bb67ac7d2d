"""The overlay: the image in grey, and each instance outlined on its own border pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from packager.overlay import draw_outlines, write_overlay
from zoo_models.errors import ImageError


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def two_squares() -> np.ndarray:
    labels = np.zeros((12, 20), np.int32)
    labels[2:9, 2:9] = 1
    labels[2:9, 9:16] = 2
    return labels


def coloured(pixels: np.ndarray) -> np.ndarray:
    coloured: np.ndarray = (pixels != pixels[..., :1]).any(axis=-1)
    return coloured


def test_outlines_lie_on_the_borders_of_the_instances_and_nowhere_else() -> None:
    labels = two_squares()
    border = np.zeros(labels.shape, bool)  # drawn by hand: the rim of each square
    for left in (2, 9):
        border[2:9, left : left + 7] = True
        border[3:8, left + 1 : left + 6] = False
    pixels = draw_outlines(np.zeros(labels.shape, np.float32), labels)
    np.testing.assert_array_equal(coloured(pixels), border)


def test_touching_instances_have_colours_of_their_own() -> None:
    pixels = draw_outlines(np.zeros((12, 20), np.float32), two_squares())
    first, second = (pixels[5, x].astype(int) for x in (8, 9))
    assert np.abs(first - second).max() > 60


def test_inside_the_outlines_the_image_is_seen_in_grey() -> None:
    image = np.linspace(0, 1000, 240, dtype=np.float32).reshape(12, 20)
    pixels = draw_outlines(image, np.zeros((12, 20), np.int32))
    assert not coloured(pixels).any()
    assert (np.diff(pixels[..., 0].ravel().astype(int)) >= 0).all()
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_a_flat_image_is_drawn_without_a_warning(value: float) -> None:
    pixels = draw_outlines(np.full((5, 7), value, np.float32), np.ones((5, 7), np.int32))
    assert pixels.shape == (5, 7, 3)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 30)])
def test_the_file_is_a_png_of_the_images_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "new" / "overlay.png"
    write_overlay(path, np.zeros(shape, np.float32), np.ones(shape, np.int32))
    assert picture(path).shape == (*shape, 3)
    assert [p.name for p in path.parent.iterdir()] == ["overlay.png"]


def test_of_a_stack_the_middle_plane_is_drawn(tmp_path: Path) -> None:
    labels = np.zeros((5, 12, 20), np.int32)
    labels[2] = two_squares()
    write_overlay(tmp_path / "overlay.png", np.zeros(labels.shape, np.float32), labels)
    expected = draw_outlines(np.zeros((12, 20), np.float32), two_squares())
    np.testing.assert_array_equal(picture(tmp_path / "overlay.png"), expected)


@pytest.mark.parametrize("place", ["file/overlay.png", "folder.png"])
def test_a_place_where_nothing_can_be_written_is_refused_and_left_as_it_was(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"cannot be written.*expected a writable folder"):
        write_overlay(tmp_path / place, np.zeros((5, 7), np.float32), np.ones((5, 7), np.int32))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.png"]
