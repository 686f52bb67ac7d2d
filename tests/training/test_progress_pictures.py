"""The picture of an epoch shows what is right in the colours of the truth, the rest in white."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets import Sample
from training.progress.colours import InstancePainter, matches
from training.progress.pictures import (
    CAPTION,
    GAP,
    LARGEST,
    choose,
    draw_page,
    draw_row,
    richest_plane,
)
from zoo_models.colours import channel_colours, embedding_colours, principal_directions, stretch


def sample(shape: tuple[int, ...], *, channels: int = 1, number: int = 4) -> Sample:
    """Instances 10, 20, ... as bands along x, on noise."""
    labels = np.zeros(shape, np.int32)
    for band in range(number):
        labels[..., 3 * band + 1 : 3 * band + 3] = 10 * (band + 1)
    image = np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)
    return Sample("some cells", image, labels)


def embeddings(shape: tuple[int, ...], dims: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(dims, *shape)).astype(np.float32)


def panels(row: np.ndarray, width: int) -> list[np.ndarray]:
    """The four panels of a row, without their captions."""
    return [row[CAPTION:, k * (width + GAP) : k * (width + GAP) + width] for k in range(4)]


def test_a_perfect_prediction_looks_like_the_truth_whatever_its_numbers() -> None:
    one = sample((200, 210))
    predicted = np.where(one.labels > 0, 77 - one.labels, 0)
    row, _ = draw_row(one, embeddings((200, 210), 4), predicted)
    _, truth, _, found = panels(row, 210)
    np.testing.assert_array_equal(truth, found)
    assert len(np.unique(truth[100, :13], axis=0)) > 4  # four colours, and black


def test_what_matches_nothing_is_white_and_what_was_missed_is_an_outline() -> None:
    truth = np.zeros((12, 24), np.int32)
    truth[2:10, 2:10], truth[2:10, 14:22] = 1, 2
    predicted = np.zeros_like(truth)
    predicted[2:10, 2:10] = 5
    predicted[2:10, 14:18] = 6  # half of the second: an IoU of 0.5 is no match
    assert matches(predicted, truth) == {5: 1}
    painter = InstancePainter(truth, predicted)
    seen, colours = painter.instances(predicted, truth), painter.truth(truth)
    np.testing.assert_array_equal(seen[:, :12], colours[:, :12])
    assert (seen[4, 15:17] == 255).all()
    outline = seen[5, 21]
    assert outline.any()
    assert not (outline == 255).all()
    assert not seen[5, 19].any()  # inside of the outline


def test_one_pixel_more_than_half_is_a_match() -> None:
    truth = np.zeros((1, 40), np.int32)
    truth[0, :20] = 3
    half, more = np.zeros_like(truth), np.zeros_like(truth)
    half[0, :10], more[0, :11] = 1, 1
    assert matches(half, truth) == {}
    assert matches(more, truth) == {1: 3}


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_the_directions_are_those_of_a_singular_value_decomposition(dims: int) -> None:
    scale = np.array([5.0, 3.0, 2.0, 1.0, 0.5])[:dims, None, None]
    values = embeddings((30, 40), dims) * scale
    found = principal_directions(values)
    pixels = values.reshape(dims, -1).astype(float)
    left, _, _ = np.linalg.svd(pixels - pixels.mean(axis=1, keepdims=True), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(left[:, :3]), atol=1e-6)
    assert (found[np.abs(found).argmax(axis=0), range(found.shape[1])] > 0).all()


@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    seed=st.integers(0, 50),
)
def test_directions_keep_the_order_and_the_signs_of_the_epoch_before(
    order: list[int], signs: tuple[float, ...], seed: int
) -> None:
    values = embeddings((12, 12), 6, seed)
    before = principal_directions(values)[:, order] * np.array(signs)
    np.testing.assert_allclose(principal_directions(values, before), before, atol=1e-9)


def test_a_small_change_of_the_embeddings_changes_the_colours_a_little() -> None:
    values = embeddings((40, 40), 8)  # all variances nearly equal: order and signs are arbitrary
    before = principal_directions(values)
    after = principal_directions(values * np.float32(1.001), before)
    change = np.abs(
        embedding_colours(values, before).astype(int) - embedding_colours(values, after)
    )
    assert change.max() <= 1


def test_contrast_is_stretched_and_a_flat_plane_is_black() -> None:
    plane = np.linspace(100, 300, 5000).reshape(50, 100)
    assert (stretch(plane).min(), stretch(plane).max()) == (0, 255)
    assert not stretch(np.full((5, 5), 7.0)).any()


def test_three_channels_are_red_green_and_blue_and_one_is_grey() -> None:
    image = np.zeros((3, 10, 10), np.float32)
    for channel in range(3):
        image[channel, channel] = 1
    picture = channel_colours(image)
    for channel in range(3):
        np.testing.assert_array_equal(picture[channel, 0], 255 * np.eye(3, dtype=int)[channel])
    grey = channel_colours(image[:1])
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dims", [1, 2, 3, 16])
@pytest.mark.parametrize("shape", [(20, 30), (5, 20, 30)])
def test_every_kind_of_image_can_be_drawn(shape: tuple[int, ...], dims: int, channels: int) -> None:
    one = sample(shape, channels=channels)
    row, directions = draw_row(one, embeddings(shape, dims), one.labels)
    assert row.dtype == np.uint8
    assert directions.shape == (dims, min(dims, 3))
    again, _ = draw_row(one, embeddings(shape, dims), one.labels, previous=directions)
    np.testing.assert_array_equal(row, again)


def test_nothing_true_nothing_found_and_nothing_to_see_can_be_drawn() -> None:
    empty = Sample("é" * 99, np.zeros((1, 8, 9), np.float32), np.zeros((8, 9), np.int32))
    row, directions = draw_row(empty, np.zeros((4, 8, 9), np.float32), empty.labels)
    assert np.isfinite(directions).all()
    zoom = 192 // 9
    assert not panels(row, 9 * zoom)[3].any()
    blank, _ = draw_row(empty, np.zeros((4, 8, 9), np.float32), np.ones((8, 9), np.int64))
    assert (panels(blank, 9 * zoom)[3].max(axis=(0, 1)) == 255).all()
    draw_page([row, blank])


def test_large_images_lose_pixels_in_all_panels_alike() -> None:
    one = sample((900, 1000))
    row, _ = draw_row(one, embeddings((900, 1000), 3), one.labels)
    every = 3  # 1000 / 384, rounded up
    assert row.shape[0] == CAPTION + 300
    width = -(-1000 // every)
    assert width <= LARGEST
    truth = panels(row, width)[1]
    np.testing.assert_array_equal(truth.any(axis=2), one.labels[::every, ::every] > 0)


def test_of_a_stack_the_plane_with_most_instances_is_shown_and_the_central_one_of_equals() -> None:
    labels = np.zeros((7, 4, 8), np.int32)
    labels[:, 0, 0] = 1
    assert richest_plane(labels) == 3
    labels[5, 0, 2] = 2
    assert richest_plane(labels) == 5


def test_the_pictured_images_hold_instances_and_are_spread_over_the_split() -> None:
    full, empty = sample((9, 20)), sample((9, 20), number=0)
    assert choose([full] * 9) == (1, 4, 7)
    assert choose([empty, full, empty, full]) == (1, 3)
    assert choose([empty]) == (0,)
    assert all(n % 2 for n in choose([empty, full] * 20))


def test_rows_of_different_widths_share_a_page() -> None:
    wide, _ = draw_row(sample((200, 300)), embeddings((200, 300), 3), sample((200, 300)).labels)
    slim, _ = draw_row(sample((200, 200)), embeddings((200, 200), 3), sample((200, 200)).labels)
    page = draw_page([wide, slim])
    assert page.size == (wide.shape[1], wide.shape[0] + slim.shape[0] + 2 * GAP)
