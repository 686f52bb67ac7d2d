"""HDBSCAN on pixels: another library's clusters, noise left out, or flooded along small steps."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.zoo_models.postprocessing.conftest import (
    BACKGROUND,
    PLACES,
    Labels,
    assert_background_is_known_in_three_ways,
    assert_drops_what_is_smaller_than_min_size,
    assert_nothing_gives_nothing,
    assert_refuses_bad_input,
    assert_same_partition,
    components,
    embed,
)
from zoo_models.postprocessing.hdbscan_pixels import HdbscanPixels, _flooded

Floats = NDArray[np.float32]
SMALL = functools.partial(HdbscanPixels, min_cluster=15)


def two_halves(middle: list[float]) -> tuple[Floats, NDArray[np.bool_]]:
    """Places 1 and 2 left and right, with columns of noise between them, far from both."""
    draw = np.random.default_rng(0)
    categories = np.ones((12, 20 + len(middle)), np.int64)
    categories[:, 10 + len(middle) :] = 2
    embeddings = embed(categories) + draw.normal(0, 0.05, (3, *categories.shape)).astype(np.float32)
    for column, part in enumerate(middle, start=10):
        blend = (1 - part) * PLACES[1] + part * PLACES[2]
        embeddings[:, :, column] = blend[:, None] + draw.normal(0, 0.3, (3, 12))
    return embeddings, np.ones(categories.shape, bool)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    cells = np.concatenate([draw.permutation(5), draw.integers(0, 5, 4)])  # every place is there
    categories = np.kron(cells.reshape(3, 3), np.ones((7, 7), np.int64))
    embeddings = embed(categories) + draw.normal(0, 0.2, (3, 21, 21)).astype(np.float32)
    theirs = sklearn.cluster.HDBSCAN(min_cluster_size=15, copy=True).fit_predict(
        embeddings.reshape(3, -1).T
    )
    found = HdbscanPixels(min_cluster=15, min_size=1)(embeddings, np.ones((21, 21), bool))
    assert_same_partition(found, components(theirs.reshape(21, 21) + 1))


def test_noise_is_background_unless_it_is_filled() -> None:
    embeddings, everywhere = two_halves([-3.0, 4.0])
    found = SMALL()(embeddings, everywhere)
    columns = np.arange(22) * np.ones((12, 1), np.int64)
    np.testing.assert_array_equal(found, np.select([columns < 10, columns > 11], [1, 2], 0))
    filled = SMALL(fill=True)(embeddings, everywhere)
    np.testing.assert_array_equal(filled, np.where(columns < 11, 1, 2))


def test_filling_stays_inside_the_foreground_and_needs_a_path_of_noise() -> None:
    embeddings, foreground = two_halves([-3.0, 15.0, 4.0])
    foreground[:, 11] = False
    foreground[4:8, 10:13] = False
    foreground[5:7, 11] = True  # an island: noise all around is masked out
    labels = SMALL(fill=True, min_size=1)(embeddings, foreground)
    np.testing.assert_array_equal(labels > 0, foreground & (np.arange(23) != 11))


def test_noise_is_flooded_from_the_background_too() -> None:
    embeddings, _ = two_halves([-3.0, 4.0])
    wide = np.concatenate([embeddings[:, :, :1].repeat(9, axis=2), embeddings], axis=2)
    wide += np.random.default_rng(1).normal(0, 0.02, wide.shape).astype(np.float32)
    np.testing.assert_array_equal(
        SMALL(fill=True)(wide) > 0, np.arange(31) * np.ones((12, 1)) >= 20
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_a_flooded_pixel_reaches_its_cluster_by_the_smallest_of_largest_steps(
    seed: int, ndim: int
) -> None:
    draw = np.random.default_rng(seed)
    shape = (5, 6) if ndim == 2 else (3, 3, 4)
    embeddings = draw.integers(0, 5, (2, *shape)).astype(np.float32)  # with equal steps
    inside = draw.random(shape) < 0.85
    clusters = np.where(inside, draw.choice([0, 0, 0, 1, 2, 3], shape), 0).astype(np.int32)
    found = _flooded(embeddings, clusters, inside)
    costs = np.stack([largest_steps(embeddings, clusters, inside, n) for n in (1, 2, 3)])
    np.testing.assert_array_equal(found[clusters > 0], clusters[clusters > 0])
    np.testing.assert_array_equal(found > 0, inside & np.isfinite(costs.min(axis=0)))
    flooded = (found > 0) & (clusters == 0)
    chosen = np.take_along_axis(costs, np.maximum(found - 1, 0)[None], axis=0)[0]
    np.testing.assert_array_equal(chosen[flooded], costs.min(axis=0)[flooded])
    for number in (1, 2, 3):  # every flooded piece touches what it was flooded from
        pieces, count = ndimage.label(found == number)
        assert all((clusters[pieces == piece] == number).any() for piece in range(1, count + 1))


def largest_steps(
    embeddings: Floats, clusters: Labels, inside: NDArray[np.bool_], number: int
) -> NDArray[np.float64]:
    """Of every path from a pixel through noise to the cluster its largest step; the smallest."""
    best = np.where(clusters == number, 0.0, np.inf)
    while True:
        before = best.copy()
        for axis, place in itertools.product(range(inside.ndim), np.ndindex(inside.shape)):
            other = tuple(p + (a == axis) for a, p in enumerate(place))
            if other[axis] == inside.shape[axis] or not (inside[place] and inside[other]):
                continue
            index = (slice(None), *place), (slice(None), *other)
            step = np.linalg.norm(embeddings[index[0]] - embeddings[index[1]])
            for here, there in ((place, other), (other, place)):
                if clusters[there] == 0 and max(best[here], step) < best[there]:
                    best[there] = max(best[here], step)
        if np.array_equal(best, before):
            return best


def test_hdbscan_keeps_the_contract_of_a_clusterer() -> None:
    for build in (SMALL, functools.partial(SMALL, fill=True)):
        assert_refuses_bad_input(build)
        assert_nothing_gives_nothing(build)
        assert_background_is_known_in_three_ways(functools.partial(build, min_cluster=30))
        assert_drops_what_is_smaller_than_min_size(build)


def test_a_cluster_is_not_smaller_than_min_cluster() -> None:
    categories = np.kron([[1, 2, 3]], np.ones((5, 5), np.int64))
    categories[:, 12:] = 2  # 25, 35 and 15 pixels
    categories[:, 10:12] = 3
    embeddings = embed(categories)
    embeddings += np.random.default_rng(0).normal(0, 0.1, embeddings.shape).astype(np.float32)
    everywhere = np.ones(categories.shape, bool)
    for min_cluster, expected in ((8, {1, 2, 3}), (14, {1, 2})):
        labels = HdbscanPixels(min_cluster=min_cluster, min_size=1)(embeddings, everywhere)
        assert set(categories[labels > 0]) == expected


def test_fewer_pixels_than_a_cluster_needs_have_no_instances() -> None:
    embeddings = embed(np.ones((10, 20), np.int32))
    assert not HdbscanPixels(min_cluster=200)(embeddings, np.ones((10, 20), bool)).any()


def test_equal_embeddings_are_one_cluster_however_many() -> None:
    everywhere = np.ones((30, 30), bool)
    assert (SMALL()(embed(everywhere.astype(np.int64)), everywhere) == 1).all()
    categories = np.kron([[1, 2], [2, 3]], np.ones((15, 15), np.int64))
    assert_same_partition(SMALL()(embed(categories), everywhere), components(categories))


def test_one_instance_alone_is_not_found() -> None:
    embeddings = embed(np.ones((10, 21), np.int32))
    embeddings += np.random.default_rng(0).normal(0, 0.1, embeddings.shape).astype(np.float32)
    assert not SMALL(background=BACKGROUND)(embeddings).any()  # a limit of the method


@pytest.mark.parametrize("min_cluster", [1, 0, -3])
def test_clusters_of_one_pixel_are_refused(min_cluster: int) -> None:
    with pytest.raises(ValueError, match=f"min_cluster is {min_cluster}, expected 2"):
        HdbscanPixels(min_cluster=min_cluster)
