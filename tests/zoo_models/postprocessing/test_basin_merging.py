"""Perfect embeddings give back the instances they were made of; the limits are known by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

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
from zoo_models.postprocessing.basin_merging import BasinMerging, touching


def exact(**changes: Any) -> BasinMerging:
    """A clusterer that keeps every instance, however small, and knows the background."""
    return BasinMerging(**{"min_size": 1, "background": BACKGROUND, **changes})


def test_touching_objects_are_told_apart_and_distant_ones_of_one_embedding_stay_two() -> None:
    assert_same_partition(BasinMerging(background=BACKGROUND)(embed(scene())), scene_truth())


def test_labels_are_consecutive_int32() -> None:
    labels = BasinMerging(background=BACKGROUND)(embed(scene()))
    assert labels.dtype == np.int32
    assert np.unique(labels).tolist() == [0, 1, 2, 3]


def test_noise_below_the_margin_changes_nothing() -> None:
    embeddings = embed(scene())
    embeddings += np.random.default_rng(0).normal(0, 0.06, embeddings.shape).astype(np.float32)
    assert_same_partition(BasinMerging(background=BACKGROUND)(embeddings), scene_truth())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_blocks_of_any_arrangement_come_out_as_scipy_labels_them(seed: int, ndim: int) -> None:
    """But for corners in 3D, where eight blocks meet and a voxel may end up with any of them."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, len(PLACES), draw.integers(1, 6, ndim))
    categories = np.kron(cells, np.ones((5,) * ndim, np.int64))
    found, expected = exact(min_size=5)(embed(categories)), components(categories)
    at_edge = [np.isin(position % 5, (0, 4)) for position in np.indices(categories.shape)]
    sure = ~np.logical_and.reduce(at_edge) | (ndim == 2)
    assert_same_partition(np.where(sure, found, 0), np.where(sure, expected, 0))


def test_parts_of_one_embedding_stay_two_on_both_sides_of_a_strip_of_another() -> None:
    categories = np.ones((10, 23), np.int32)
    categories[:, 10:13] = 2
    assert_same_partition(exact()(embed(categories)), components(categories))


def test_boundary_pixels_go_to_the_nearer_of_the_two_instances() -> None:
    categories = np.ones((12, 20), np.int32)
    categories[:, 10:] = 2
    embeddings = embed(categories)
    for column, part in ((9, 0.4), (10, 0.7)):  # blurred: neither one nor the other
        blend = (1 - part) * PLACES[1] + part * PLACES[2]
        embeddings[:, :, column] = blend[:, None]
    labels = BasinMerging(solid=0, background=BACKGROUND)(embeddings)
    assert_same_partition(labels, categories)


def test_parts_that_touch_broadly_are_one_object_and_those_that_touch_narrowly_are_two() -> None:
    """Two squares of 12 x 12, 2.4 apart: 2.4 * 12 / 12 along a side, 2.4 * 12 / 8 at a corner."""
    broad, narrow = np.zeros((2, 30, 30), np.int32)
    broad[3:15, 3:15] = narrow[3:15, 3:15] = 1
    broad[3:15, 15:27], narrow[9:21, 15:27] = 2, 2  # 6 pixels, which the basins meet in two steps
    places = PLACES[1] + np.array([[0.0], [2.4]]) * [0.0, 1.0, 0.0]
    for labels, expected in ((broad, [2, 1, 1, 1]), (narrow, [2, 2, 2, 1])):
        embeddings = embed(labels)
        embeddings[:, labels == 1], embeddings[:, labels == 2] = places[:, :, None]
        parts = [exact(tension=t, merge=3.0)(embeddings).max() for t in (2.3, 2.5, 3.5, 3.7)]
        assert parts == expected
        assert exact(tension=9.0, merge=2.3)(embeddings).max() == 2


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_contact_is_the_number_of_neighbouring_pixels(seed: int, ndim: int) -> None:
    """Literally: every pixel, every axis."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, draw.integers(1, 7, ndim)).astype(np.int32)
    expected: Counter[tuple[int, int]] = Counter()
    for place, axis in product(np.ndindex(labels.shape), range(ndim)):
        beside = tuple(p + (a == axis) for a, p in enumerate(place))
        if beside[axis] < labels.shape[axis]:
            a, b = sorted((int(labels[place]), int(labels[beside])))
            expected[a, b] += 0 < a < b
    first, second, contact = (column.tolist() for column in touching(labels))
    assert dict(zip(zip(first, second, strict=True), contact, strict=True)) == dict(+expected)


def test_the_blurred_rim_of_an_object_is_background() -> None:
    categories = np.zeros((12, 20), np.int32)
    categories[:, 10:] = 1
    embeddings = embed(categories)
    embeddings[0, :, 9], embeddings[0, :, 10] = 4.0, 7.0  # 8 is the object, 0 the background
    for solid, first in ((0.0, 9), (0.8, 10), (0.95, 11)):
        labels = BasinMerging(solid=solid, background=BACKGROUND)(embeddings)
        np.testing.assert_array_equal(np.flatnonzero(labels[5]), np.arange(first, 20))


def test_without_a_background_constant_the_largest_region_is_the_background() -> None:
    assert_same_partition(BasinMerging()(embed(scene())), scene_truth())


def test_a_background_constant_holds_where_an_object_fills_most_of_the_image() -> None:
    categories = np.zeros((20, 20), np.int32)
    categories[:, 3:] = 2
    labels = BasinMerging(background=BACKGROUND)(embed(categories))
    assert_same_partition(labels, categories)
    by_size = BasinMerging()(embed(categories))
    np.testing.assert_array_equal(by_size > 0, categories == 0)  # what the constant is there for


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_without_a_spread_the_distance_is_euclidean_to_the_last_bit(seed: int, ndim: int) -> None:
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(0, 3, (3, *draw.integers(1, 9, ndim))).astype(np.float32)
    place = draw.normal(0, 1, 3).astype(np.float32)
    squared = np.zeros(embeddings.shape[1:], np.float32)
    for d in range(3):
        squared += (embeddings[d] - place[d]) ** 2
    plain, unit = exact(background=place.tolist()), np.eye(3).ravel().tolist()
    np.testing.assert_array_equal(plain.landscape(embeddings, place)[0], np.sqrt(squared))
    same = exact(background=place.tolist(), spread=unit)
    np.testing.assert_array_equal(same.landscape(embeddings, place)[0], np.sqrt(squared))
    np.testing.assert_array_equal(same(embeddings), plain(embeddings))


def test_with_a_spread_the_distance_is_in_standard_deviations_of_the_background() -> None:
    draw = np.random.default_rng(1)
    mixed = draw.normal(size=(3, 3)) * [[2.0], [0.3], [0.05]]
    cloud = np.asarray(mixed @ draw.normal(size=(3, 4000)) + 1, np.float32)
    covariance = np.cov(cloud)
    scale = np.linalg.cholesky(np.linalg.inv(covariance)).T
    place = cloud.mean(axis=1)
    clusterer = exact(background=place.tolist(), spread=scale.ravel().tolist())
    found = clusterer.landscape(cloud.reshape(3, 50, 80), place)[0].ravel()
    expected = cdist(cloud.T, place[None], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found**2).mean() == pytest.approx(3, rel=1e-2)  # one per dimension


def test_a_long_thin_cloud_of_background_needs_its_spread() -> None:
    embeddings = embed(scene(), PLACES * 0.4)  # objects at 3.2, and at 4.5 from each other
    cloud = 4 * np.sin(np.arange(40) * 0.5) * np.ones((24, 1))
    embeddings[2] += np.where(scene() == 0, cloud, 0)
    settings: dict[str, Any] = {"background": BACKGROUND, "radius": 2.5}
    assert BasinMerging(**settings)(embeddings).max() > 3
    spread = np.diag([1, 1, 0.25]).ravel().tolist()
    assert_same_partition(BasinMerging(**settings, spread=spread)(embeddings), scene_truth())


@pytest.mark.parametrize(("number", "background"), [(8, BACKGROUND), (3, BACKGROUND), (9, ())])
def test_a_spread_that_does_not_fit_its_background_is_refused(
    number: int, background: tuple[float, ...]
) -> None:
    found = f"{number} numbers and background has {len(background)}, expected D \\* D and D"
    with pytest.raises(ValueError, match=found):
        BasinMerging(background=background, spread=[1.0] * number)


def test_holes_of_background_in_an_object_are_background() -> None:
    categories = np.ones((20, 20), np.int32)
    categories[6:14, 6:14] = 0
    assert_same_partition(BasinMerging(background=BACKGROUND)(embed(categories)), categories)


def test_instances_smaller_than_min_size_are_dropped_and_the_rest_renumbered() -> None:
    categories = np.zeros((20, 30), np.int32)
    categories[2:6, 2:7] = 1  # 20 pixels
    categories[2:5, 12:19] = 2  # 21 pixels
    labels = BasinMerging(min_size=21, background=BACKGROUND)(embed(categories))
    np.testing.assert_array_equal(labels, categories == 2)
    both = BasinMerging(min_size=20, background=BACKGROUND)(embed(categories))
    assert_same_partition(both, categories)


def test_only_the_foreground_is_labelled() -> None:
    foreground = np.zeros(scene().shape, bool)
    foreground[:10] = True
    labels = BasinMerging(background=BACKGROUND)(embed(scene()), foreground)
    assert_same_partition(labels, np.where(foreground, scene_truth(), 0))
    nothing = BasinMerging(background=BACKGROUND)(embed(scene()), np.zeros_like(foreground))
    assert not nothing.any()


def test_what_the_foreground_leaves_of_an_instance_must_be_large_enough_too() -> None:
    foreground = np.zeros(scene().shape, bool)
    foreground[:, :12] = True  # all of object 1, two columns (16 pixels) of object 2
    labels = BasinMerging(min_size=17, background=BACKGROUND)(embed(scene()), foreground)
    np.testing.assert_array_equal(labels, (scene_truth() == 1).astype(np.int32))


def test_stacks_are_joined_through_their_planes() -> None:
    categories = np.zeros((8, 16, 16), np.int32)
    categories[1:7, 2:7, 2:7] = 1
    categories[1:7, 2:7, 7:12] = 2  # touches the first in x
    categories[1:4, 10:15, 2:7] = 3
    categories[4:7, 10:15, 2:7] = 4  # touches the third in z
    assert_same_partition(BasinMerging(background=BACKGROUND)(embed(categories)), categories)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_result_depends_neither_on_the_order_of_categories_nor_on_the_axes_of_space(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    places = PLACES.copy()
    places[1:] = draw.permutation(places[1:])
    assert_same_partition(exact()(embed(scene(), places)), scene_truth())
    rotation = np.linalg.qr(draw.normal(size=(3, 3)))[0].astype(np.float32)
    assert_same_partition(exact()(embed(scene(), PLACES @ rotation)), scene_truth())


@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose])
def test_the_result_does_not_depend_on_where_the_image_begins(
    turn: Callable[[Labels], Labels],
) -> None:
    labels = BasinMerging(background=BACKGROUND)(embed(turn(scene())))
    assert_same_partition(labels, turn(scene_truth()))


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (5, 7), (1, 40), (30, 30), (3, 9, 9)])
def test_an_image_of_background_only_has_no_instances(shape: tuple[int, ...]) -> None:
    nothing = embed(np.zeros(shape, np.int32))
    for clusterer in (BasinMerging(), BasinMerging(background=BACKGROUND), exact()):
        labels = clusterer(nothing)
        assert labels.shape == shape
        assert labels.dtype == np.int32
        assert not labels.any()


def test_an_image_of_one_object_is_one_instance_when_the_background_is_known() -> None:
    labels = BasinMerging(background=BACKGROUND)(embed(np.ones((9, 9), np.int32)))
    assert (labels == 1).all()


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
