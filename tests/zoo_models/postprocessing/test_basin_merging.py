"""Perfect embeddings give back the instances they were made of, but for a pixel at sharp corners.

At a corner of the background the change of the embedding is lower than along an edge, so a corner
pixel may flow out::

    0 0 0 0 0          0 0 0 0 0
    0 1 1 1 1    ->    0 0 1 1 1
    0 1 1 1 1          0 1 1 1 1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo_models.postprocessing.conftest import (
    BACKGROUND,
    PLACES,
    Labels,
    assert_same_partition,
    components,
    embed,
    scene,
    scene_truth,
)
from zoo_models.checkpoint import ClustererSettings
from zoo_models.errors import InputError
from zoo_models.postprocessing import build_clusterer, clusterer_file
from zoo_models.postprocessing.basin_merging import BasinMerging


def cluster(categories: Labels, **settings: Any) -> Labels:
    return BasinMerging(**{"background": BACKGROUND, **settings})(embed(categories))


def assert_recovered(found: Labels, truth: Labels, *, least: float = 0.85) -> None:
    """One instance for each true one, inside it but for a pixel in 20, covering `least` of it."""
    assert found.shape == truth.shape
    assert found.dtype == np.int32
    numbers = np.unique(truth[truth > 0])
    assert np.unique(found[found > 0]).tolist() == list(range(1, len(numbers) + 1))
    for number in numbers:
        inside = found[truth == number]
        label = np.bincount(inside[inside > 0]).argmax() if inside.any() else 0
        assert label > 0, f"object {number} is lost"
        assert (inside == label).mean() >= least, f"object {number}"
        assert (truth[found == label] == number).mean() >= 0.95, f"object {number}"


def discs(places: list[tuple[int, int, int]], shape: tuple[int, int]) -> Labels:
    """Discs of radius 6, (category, y, x) each."""
    labels = np.zeros(shape, np.int32)
    y, x = np.indices(shape)
    for category, centre_y, centre_x in places:
        labels[(y - centre_y) ** 2 + (x - centre_x) ** 2 <= 36] = category
    return labels


def test_touching_objects_are_told_apart_and_distant_ones_of_one_embedding_stay_two() -> None:
    assert_recovered(cluster(scene()), scene_truth())


def test_discs_come_out_whole() -> None:
    categories = discs([(1, 10, 10), (2, 10, 23), (3, 23, 16), (1, 10, 50)], (36, 64))
    assert_recovered(cluster(categories), components(categories), least=0.96)


def test_noise_below_the_margin_changes_little() -> None:
    embeddings = embed(scene())
    embeddings += np.random.default_rng(0).normal(0, 0.06, embeddings.shape).astype(np.float32)
    assert_recovered(BasinMerging(background=BACKGROUND)(embeddings), scene_truth())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_blocks_of_any_arrangement_come_out_as_scipy_labels_them(seed: int) -> None:
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, len(PLACES), draw.integers(1, 6, 2))
    categories = np.kron(cells, np.ones((8, 8), np.int64))
    assert_recovered(cluster(categories), components(categories))


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_blocks_of_a_stack_come_out_as_scipy_labels_them(seed: int) -> None:
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 4, draw.integers(1, 4, 3))
    truth = components(np.kron(cells, np.ones((6, 6, 6), np.int64)))
    places = 8 * np.eye(truth.max() + 1, dtype=np.float32)  # no two alike: they may meet at edges
    found = BasinMerging(background=tuple(places[0].tolist()))(embed(truth, places))
    assert_recovered(found, truth, least=0.7)


def test_a_ridge_of_blurred_pixels_between_two_instances_is_shared_out() -> None:
    categories = np.ones((16, 24), np.int32)
    categories[:, 12:] = 2
    embeddings = embed(categories)
    for column, part in ((10, 0.2), (11, 0.4), (12, 0.6), (13, 0.8)):
        embeddings[:, :, column] = ((1 - part) * PLACES[1] + part * PLACES[2])[:, None]
    labels = BasinMerging(background=BACKGROUND)(embeddings)
    assert (labels > 0).all()
    assert_recovered(labels, categories, least=0.9)


def test_an_instance_that_drifts_slowly_stays_one() -> None:
    categories = np.zeros((20, 60), np.int32)
    categories[4:16, 5:55] = 1
    embeddings = embed(categories)
    embeddings[1, 4:16, 5:55] += np.linspace(0, 2, 50, dtype=np.float32)
    assert_recovered(BasinMerging(background=BACKGROUND)(embeddings), categories)


def test_without_a_background_constant_the_largest_group_is_the_background() -> None:
    assert_recovered(BasinMerging()(embed(scene())), scene_truth())


def test_a_background_constant_holds_where_an_object_fills_most_of_the_image() -> None:
    categories = np.zeros((20, 20), np.int32)
    categories[:, 4:] = 2
    assert_recovered(cluster(categories), categories)
    by_size = BasinMerging()(embed(categories))
    assert_recovered(by_size, categories == 0)  # what the constant is there for


def test_holes_of_background_in_an_object_are_background() -> None:
    categories = np.ones((24, 24), np.int32)
    categories[8:16, 8:16] = 0
    labels = cluster(categories)
    assert labels[11, 11] == 0
    assert_recovered(labels, categories)


def test_pixels_nearer_to_the_background_are_trimmed_from_the_rim_but_not_from_within() -> None:
    categories = discs([(1, 10, 10)], (21, 21))
    embeddings = embed(categories)
    embeddings[:, 10, 10] = 0  # within
    embeddings[:, 4, 10] = 0.3 * PLACES[1]  # on the rim, twice as near to the background
    labels = BasinMerging(background=BACKGROUND)(embeddings)
    assert labels[10, 10] == 1
    assert labels[4, 10] == 0
    generous = BasinMerging(background=BACKGROUND, boundary=0.1)(embeddings)
    assert np.count_nonzero(generous) >= np.count_nonzero(labels)


def test_instances_smaller_than_min_size_are_dropped_and_the_rest_renumbered() -> None:
    categories = discs([(1, 10, 10), (2, 10, 40)], (24, 54))
    categories[10:, :20] = 0  # half of the first disc
    half, whole = (int((categories == c).sum()) for c in (1, 2))
    for min_size, expected in ((half // 2, [1, 2]), (half + 1, [2]), (whole + 1, [])):
        labels = cluster(categories, min_size=min_size)
        kept = np.where(np.isin(categories, expected), categories, 0)
        assert_recovered(labels, kept)


def test_of_an_instance_only_its_largest_piece_stays() -> None:
    foreground = np.ones((24, 40), bool)
    foreground[:, 12:14] = False
    categories = np.zeros((24, 40), np.int32)
    categories[4:20, 4:36] = 1
    labels = BasinMerging(background=BACKGROUND)(embed(categories), foreground)
    categories[:, :14] = 0
    assert_recovered(labels, categories)


def test_only_the_foreground_is_labelled() -> None:
    foreground = np.zeros(scene().shape, bool)
    foreground[:10] = True
    labels = BasinMerging(background=BACKGROUND)(embed(scene()), foreground)
    assert_recovered(labels, np.where(foreground, scene_truth(), 0))
    nothing = BasinMerging(background=BACKGROUND)(embed(scene()), np.zeros_like(foreground))
    assert not nothing.any()


def test_stacks_are_told_apart_along_every_axis() -> None:
    categories = np.zeros((16, 20, 20), np.int32)
    categories[2:14, 2:8, 2:8] = 1
    categories[2:14, 2:8, 8:14] = 2  # touches the first in x
    categories[2:8, 12:18, 2:8] = 3
    categories[8:14, 12:18, 2:8] = 4  # touches the third in z
    assert_recovered(cluster(categories), categories, least=0.7)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_result_depends_neither_on_the_order_of_channels_nor_on_the_axes_of_space(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    renamed = embed(scene(), PLACES[:, draw.permutation(3)])
    assert_same_partition(BasinMerging(background=BACKGROUND)(renamed), cluster(scene()))
    rotation = np.linalg.qr(draw.normal(size=(3, 3)))[0].astype(np.float32)
    turned = BasinMerging(background=BACKGROUND)(embed(scene(), PLACES @ rotation))
    assert_recovered(turned, scene_truth())


@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose])
def test_the_instances_do_not_depend_on_where_the_image_begins(
    turn: Callable[[Labels], Labels],
) -> None:
    assert_recovered(cluster(turn(scene())), turn(scene_truth()))


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (5, 7), (1, 40), (30, 30), (3, 9, 9)])
def test_an_image_of_background_only_has_no_instances(shape: tuple[int, ...]) -> None:
    nothing = embed(np.zeros(shape, np.int32))
    for clusterer in (BasinMerging(), BasinMerging(background=BACKGROUND, min_size=1)):
        labels = clusterer(nothing)
        assert labels.shape == shape
        assert labels.dtype == np.int32
        assert not labels.any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 40), (4, 5, 6)])
def test_an_image_of_one_object_is_one_instance_when_the_background_is_known(
    shape: tuple[int, ...],
) -> None:
    assert (cluster(np.ones(shape, np.int32), min_size=1) == 1).all()


def test_the_embeddings_are_left_as_they_were() -> None:
    embeddings, foreground = embed(scene()), np.ones(scene().shape, bool)
    BasinMerging(background=BACKGROUND)(embeddings, foreground)
    np.testing.assert_array_equal(embeddings, embed(scene()))
    assert foreground.all()


def test_a_clusterer_is_built_by_name_and_an_unknown_one_is_refused_with_the_known() -> None:
    built = build_clusterer(ClustererSettings("basin_merging", {"min_size": 7}))
    assert isinstance(built, BasinMerging)
    assert built.min_size == 7
    assert clusterer_file("basin_merging").is_file()
    with pytest.raises(InputError, match=r"'magic'.*basin_merging"):
        build_clusterer(ClustererSettings("magic"))
    with pytest.raises(InputError, match=r"basin_merging.*'size'"):
        build_clusterer(ClustererSettings("basin_merging", {"size": 7}))
