"""Mean-shift finds what scikit-learn's and a literal transcription find, without their patience."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.zoo_models.postprocessing.conftest import (
    BACKGROUND,
    Labels,
    assert_background_is_known_in_three_ways,
    assert_drops_what_is_smaller_than_min_size,
    assert_nothing_gives_nothing,
    assert_refuses_bad_input,
    assert_same_partition,
    components,
    embed,
    scene,
    scene_truth,
)
from zoo_models.postprocessing import mean_shift
from zoo_models.postprocessing.mean_shift import MeanShift

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


def noisy_blocks(seed: int, ndim: int = 2, dim: int = 3, sigma: float = 0.12) -> Floats:
    """(D, ...) squares or cubes of random places at least 2 apart, with noise."""
    draw = np.random.default_rng(seed)
    places = np.zeros((0, dim))
    while len(places) < 6:
        place = draw.uniform(-3, 3, (1, dim))
        if (np.linalg.norm(places - place, axis=1) > 2).all():
            places = np.concatenate([places, place])
    cells = draw.integers(0, len(places), (5 - ndim,) * ndim)
    embeddings = embed(np.kron(cells, np.ones((4,) * ndim, np.int64)), places.astype(np.float32))
    return embeddings + draw.normal(0, sigma, embeddings.shape).astype(np.float32)


def literally(pixels: Doubles, radius: float) -> NDArray[np.intp]:
    """Every pixel climbs to the end; of ends near each other the heaviest stays; nearest wins."""
    ends = []
    for pixel in pixels:
        place = pixel
        while True:
            near = pixels[((pixels - place) ** 2).sum(axis=1) <= radius**2]
            before, place = place, near.mean(axis=0)
            if np.linalg.norm(place - before) <= 1e-3 * radius:
                break
        ends.append((len(near), *place))
    modes: list[Doubles] = []
    for _, *end in sorted(ends, reverse=True):
        if all(np.linalg.norm(mode - end) > radius for mode in modes):
            modes.append(np.array(end))
    distances = [np.linalg.norm(pixels - mode, axis=1) for mode in modes]
    return np.argmin(distances, axis=0)


def flat(embeddings: Floats) -> Doubles:
    return embeddings.reshape(len(embeddings), -1).T.astype(float)


def clustered(embeddings: Floats, **changes: bool | float) -> Labels:
    """All pixels are foreground, and instances of one pixel count."""
    everywhere = np.ones(embeddings.shape[1:], bool)
    return MeanShift(**{"min_size": 1, **changes})(embeddings, everywhere)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_separated_clusters_are_those_of_the_definition(seed: int, ndim: int) -> None:
    embeddings = noisy_blocks(seed, ndim)
    by_definition = literally(flat(embeddings), 0.5) + 1
    found = clustered(embeddings)
    assert_same_partition(found, components(by_definition.reshape(found.shape)))


@pytest.mark.parametrize("seed", range(6))
def test_separated_clusters_are_those_of_scikit_learn(seed: int) -> None:
    embeddings = noisy_blocks(seed, dim=2 + seed)
    theirs = sklearn.cluster.MeanShift(bandwidth=0.7).fit_predict(flat(embeddings)) + 1
    found = clustered(embeddings, delta_v=0.7)
    assert_same_partition(found, components(theirs.reshape(found.shape)))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 4), delta_v=st.floats(0.2, 1.0))
def test_modes_of_any_cloud_are_means_of_what_is_near_and_apart_from_each_other(
    seed: int, dim: int, delta_v: float
) -> None:
    pixels = np.random.default_rng(seed).uniform(-1, 1, (700, dim))
    modes = mean_shift._modes(pixels, delta_v, 5)
    near = np.linalg.norm(pixels[:, None] - modes, axis=2) <= delta_v
    weights = near.sum(axis=0)
    assert (weights >= 5).all()
    steps = np.linalg.norm((near.T @ pixels) / weights[:, None] - modes, axis=1)
    assert (steps <= 2e-3 * delta_v).all()
    apart = np.linalg.norm(modes[:, None] - modes, axis=2)[np.triu_indices(len(modes), 1)]
    assert (apart > delta_v).all()


def test_more_places_and_pixels_than_are_compared_at_once_are_all_seen() -> None:
    draw = np.random.default_rng(3)
    places = np.stack(np.meshgrid(*[np.arange(7) * 3.0] * 3), axis=-1).reshape(-1, 3)
    places = places[draw.permutation(len(places))].astype(np.float32)
    categories = np.kron(np.arange(len(places)).reshape(7, 49), np.ones((6, 6), np.int64))
    assert categories.size > mean_shift.COLUMNS
    assert len(places) > max(mean_shift.FIRST_CLIMBERS, mean_shift.ROWS)
    embeddings = embed(categories, places)
    embeddings += draw.normal(0, 0.05, embeddings.shape).astype(np.float32)
    assert_same_partition(clustered(embeddings), categories + 1)


def test_a_mode_of_fewer_than_min_size_pixels_is_none_and_its_pixels_go_to_the_nearest() -> None:
    embeddings = embed(scene())
    embeddings[:, 6, 5] = (6, 0, 0)  # within object 1, which is at (8, 0, 0)
    foreground = scene() > 0
    assert_same_partition(MeanShift(min_size=2)(embeddings, foreground), scene_truth())
    alone = MeanShift(min_size=1)(embeddings, foreground)
    assert alone.max() == 4
    assert np.count_nonzero(alone == alone[6, 5]) == 1


def test_of_ends_within_delta_v_of_each_other_the_heaviest_is_the_mode() -> None:
    ends = np.array([[0.0], [0.4], [0.8], [3.0]])
    modes, weights = mean_shift._strongest(ends, np.array([5, 9, 7, 11]), 0.5)
    assert modes.tolist() == [[3.0], [0.4]]
    assert weights.tolist() == [11, 9]


def test_the_bandwidth_decides_what_is_one_cluster() -> None:
    categories = np.repeat([[0, 1, 2]], 6, axis=0).repeat(6, axis=1)
    places = np.array([[0], [0.3], [3]], np.float32)
    assert clustered(embed(categories, places)).max() == 2
    assert clustered(embed(categories, places), delta_v=0.2).max() == 3


def test_merge_joins_clusters_nearer_than_delta_d_also_over_others() -> None:
    categories = np.repeat([[0, 1, 2, 3]], 6, axis=0).repeat(6, axis=1)
    places = np.array([[0], [1.5], [3], [5]], np.float32)  # the last is 2, delta_d, from the third
    embeddings = embed(categories, places)
    assert_same_partition(clustered(embeddings), categories + 1)
    assert_same_partition(clustered(embeddings, merge=True), 1 + (categories == 3))
    assert_same_partition(clustered(embeddings, merge=True, delta_d=1.5), categories + 1)
    assert clustered(embeddings, merge=True, delta_d=2.1).max() == 1


def test_merged_parts_of_the_background_are_background() -> None:
    categories = np.repeat([[0, 1, 2, 1]], 6, axis=0).repeat(6, axis=1)
    embeddings = embed(categories, np.array([[0], [1], [5]], np.float32))
    np.testing.assert_array_equal(MeanShift(merge=True)(embeddings), categories == 2)


def test_noise_without_modes_has_no_instances() -> None:
    noise = np.random.default_rng(0).normal(0, 5, (8, 20, 20)).astype(np.float32)
    assert not MeanShift()(noise).any()


@pytest.mark.parametrize("build", [MeanShift, lambda **s: MeanShift(**s, merge=True)])
def test_mean_shift_keeps_the_contract_of_a_clusterer(build: type[MeanShift]) -> None:
    assert_refuses_bad_input(build)
    assert_nothing_gives_nothing(build)
    assert_background_is_known_in_three_ways(build)
    assert_drops_what_is_smaller_than_min_size(build)


def test_an_object_that_fills_the_image_is_one_when_the_background_is_known() -> None:
    whole = embed(np.ones((9, 9), np.int32))
    assert (MeanShift(background=BACKGROUND)(whole) == 1).all()
    assert (MeanShift()(whole, np.ones((9, 9), bool)) == 1).all()


def test_sixty_thousand_instances_are_found() -> None:
    cells = np.indices((245, 245)).sum(axis=0) % 2
    categories = np.kron(cells, np.ones((2, 2), np.int64)) + 1
    labels = clustered(embed(categories))
    assert labels.max() == 245 * 245


@pytest.mark.parametrize("name", ["_check_margins", "_inside", "_pieces"])
def test_helpers_that_travel_in_several_files_are_the_same_in_each(name: str) -> None:
    folder = Path(mean_shift.__file__).parent
    found = set()
    for file in ("mean_shift.py", "hdbscan_pixels.py", "mutex_watershed.py"):
        body = ast.parse((folder / file).read_text()).body
        (function,) = [f for f in body if isinstance(f, ast.FunctionDef) and f.name == name]
        found.add(ast.unparse(function))
    assert len(found) == 1
