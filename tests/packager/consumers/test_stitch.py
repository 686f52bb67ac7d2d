"""Stitching: what a tile reads beyond the image, what is written, what fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.consumers.placement import AxisTile, Padding, Placement
from packager.consumers.stitch import Array, read_padded, stitch
from tests.packager.consumers.conftest import noise
from zoo_models.geometry import Box

MODES = st.sampled_from(["symmetric", "reflect"])


@given(size=st.integers(1, 9), before=st.integers(0, 40), after=st.integers(0, 40), padding=MODES)
def test_reading_beyond_the_image_is_numpys_padding(
    size: int, before: int, after: int, padding: Padding
) -> None:
    image = noise((size, 2))
    ours = read_padded(image, Box((-before, 0), (size + after, 2)), padding)
    expected = np.pad(image, [(0, 0), (before, after), (0, 0)], mode=padding)
    np.testing.assert_array_equal(ours, expected)


@given(start=st.integers(-20, 20), width=st.integers(1, 30), padding=MODES)
def test_a_box_that_is_partly_or_wholly_outside_is_a_part_of_the_padded_image(
    start: int, width: int, padding: Padding
) -> None:
    image = noise((6, 7, 8))
    ours = read_padded(image, Box((0, start, 0), (6, start + width, 8)), padding)
    padded = np.pad(image, [(0, 0), (0, 0), (50, 50), (0, 0)], mode=padding)
    np.testing.assert_array_equal(ours, padded[:, :, 50 + start : 50 + start + width])


def line(*tiles: AxisTile, size: int, output: int) -> Placement:
    """Tiles along x; y is one pixel."""
    one = (AxisTile((0, 1), (0, 1), (0, 1)),)
    return Placement("test", (1, size), (1, output), "symmetric", (one, tiles))


def doubled(raw: Array) -> Array:
    return np.concatenate([raw, 2 * raw])


def test_each_tile_is_cropped_and_written_and_later_tiles_overwrite() -> None:
    image = noise((1, 8))
    placement = line(
        AxisTile((-1, 6), (1, 6), (0, 5)),
        AxisTile((2, 9), (0, 6), (2, 8)),
        size=8,
        output=8,
    )
    stitched = stitch(
        lambda raw: doubled(raw) + raw.shape[2] * (raw[0, 0, 0] == 0), image, placement
    )
    np.testing.assert_array_equal(stitched.output, doubled(image))
    assert stitched.failed == ()
    marked = stitch(lambda raw: np.full_like(raw, raw[0, 0, 1]), image, placement)
    np.testing.assert_array_equal(marked.output[0, 0, :2], image[0, 0, 0])
    np.testing.assert_array_equal(marked.output[0, 0, 2:], image[0, 0, 3])


def test_what_nobody_writes_is_nan() -> None:
    stitched = stitch(
        doubled, noise((1, 8)), line(AxisTile((0, 4), (0, 4), (1, 5)), size=8, output=9)
    )
    assert stitched.output.shape == (2, 1, 9)
    np.testing.assert_array_equal(
        np.isnan(stitched.output[0, 0]), [True, False, False, False, False, True, True, True, True]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        AxisTile((0, 4), (1, 5), (4, 8)),  # crops more than the answer has
        AxisTile((0, 4), (-1, 3), (4, 8)),  # crops before its beginning
        AxisTile((0, 4), (0, 3), (4, 8)),  # is to be written to a box of another width
    ],
)
def test_a_tile_whose_answer_does_not_fit_fails_and_the_others_are_written(
    wrong: AxisTile,
) -> None:
    good = AxisTile((0, 4), (0, 4), (0, 4))
    stitched = stitch(doubled, noise((1, 8)), line(good, wrong, size=8, output=8))
    assert stitched.failed == (1,)
    assert not np.isnan(stitched.output[..., :4]).any()
    assert np.isnan(stitched.output[..., 4:]).all()
