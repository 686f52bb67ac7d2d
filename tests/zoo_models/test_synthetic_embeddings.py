"""The scenes are what their description says, measured on the arrays alone."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist

from zoo_models.synthetic_embeddings import Kind, Scene, SyntheticEmbeddings, synthesise

KINDS: tuple[Kind, ...] = get_args(Kind)
SHAPES = [(96, 80), (12, 40, 36)]
CLEAN = Scene((96, 80), 30, sigma=0.0)


def every_scene(*, delta_d: float = 2.0, sigma: float = 0.1) -> list[Scene]:
    return [
        Scene(shape, 30, kind, delta_d=delta_d, sigma=sigma) for shape in SHAPES for kind in KINDS
    ]


def noise(scene: Scene) -> np.ndarray:
    drawn = synthesise(scene)
    return drawn.embeddings - drawn.means.T[:, drawn.truth]


def assert_instances_are_well_formed(drawn: SyntheticEmbeddings) -> None:
    ids = np.unique(drawn.truth)
    count = ids[-1]
    np.testing.assert_array_equal(ids[ids > 0], np.arange(1, count + 1))
    assert drawn.means.shape == (count + 1, len(drawn.embeddings))
    for instance in range(1, count + 1):
        assert ndimage.label(drawn.truth == instance)[1] == 1


@pytest.mark.parametrize("scene", every_scene(), ids=str)
def test_instances_are_consecutive_and_connected(scene: Scene) -> None:
    drawn = synthesise(scene)
    assert drawn.truth.shape == scene.shape
    assert drawn.truth.dtype == np.int32
    assert drawn.embeddings.shape == (16, *scene.shape)
    assert drawn.embeddings.dtype == np.float32
    assert_instances_are_well_formed(drawn)
    assert 25 <= drawn.truth.max() <= 30


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_only_voronoi_fills_space(shape: tuple[int, ...]) -> None:
    empty = [np.mean(synthesise(Scene(shape, 30, kind)).truth == 0) for kind in KINDS]
    assert empty[0] == 0
    assert 0.2 < empty[1] < 0.9
    assert 0.2 < empty[2] < 0.9


def test_leaves_are_less_convex_than_cells() -> None:
    """The part of its convex hull that an instance fills, in the median."""
    from skimage.measure import regionprops

    cells, leaves = (
        np.median([r.solidity for r in regionprops(synthesise(Scene((200, 200), 30, kind)).truth)])
        for kind in ("cells", "leaves")
    )
    assert leaves < 0.85 < 0.95 < cells


def test_some_cells_touch_and_some_do_not() -> None:
    truth = synthesise(Scene((200, 200), 30, "cells")).truth
    blobs = ndimage.label(truth > 0)[1]
    assert 1 < blobs < truth.max()


@pytest.mark.parametrize("scene", every_scene(delta_d=1.5), ids=str)
def test_all_means_are_two_delta_d_apart_when_there_are_enough(scene: Scene) -> None:
    means = synthesise(scene).means
    assert pdist(means).min() >= 3.0
    assert pdist(means).min() < 4.0  # and as dense as trained ones, more or less


@pytest.mark.parametrize(
    "scene", [Scene((160, 160), 200, k, distinct=40) for k in KINDS], ids=lambda s: s.kind
)
def test_instances_that_share_a_mean_are_far_from_each_other(scene: Scene) -> None:
    drawn = synthesise(scene)
    assert len(np.unique(drawn.means, axis=0)) == 41
    number = drawn.truth.max()
    places = np.array(ndimage.center_of_mass(drawn.truth > 0, drawn.truth, range(1, number + 1)))
    same = cdist(drawn.means[1:], drawn.means[1:]) == 0
    np.fill_diagonal(same, False)
    assert same.any()
    assert cdist(places, places)[same].min() > 1.3 * scene.spacing
    assert cdist(drawn.means[:1], drawn.means[1:]).min() >= 4.0
    for axis in (0, 1):  # those that touch
        low, high = (np.moveaxis(drawn.truth, axis, 0)[s] for s in (np.s_[:-1], np.s_[1:]))
        meet = low != high
        apart = np.linalg.norm(drawn.means[low[meet]] - drawn.means[high[meet]], axis=1)
        assert apart.min() >= 4.0


def test_too_few_distinct_means_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 distinct means; expected more means: raise `distinct`"):
        synthesise(Scene((160, 160), 200, "voronoi", distinct=3))


@pytest.mark.parametrize("instances", [0, 26])
def test_an_impossible_number_of_instances_is_an_error(instances: int) -> None:
    with pytest.raises(ValueError, match="at most one per pixel"):
        synthesise(Scene((5, 5), instances))


def test_a_scene_of_one_axis_is_an_error() -> None:
    with pytest.raises(ValueError, match="in 2D or 3D"):
        synthesise(Scene((100,), 3))


@pytest.mark.parametrize("scene", every_scene(sigma=0.2), ids=str)
def test_noise_has_the_asked_standard_deviation(scene: Scene) -> None:
    assert noise(scene).std() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("correlation", [1.0, 2.0, 4.0])
def test_correlated_noise_keeps_its_standard_deviation_and_is_smooth(correlation: float) -> None:
    """Noise smoothed by a Gaussian of sigma c has the correlation exp(-1 / (4 c^2)) at 1 pixel."""
    found = noise(Scene((160, 160), 10, sigma=0.2, correlation=correlation))
    assert found.std() == pytest.approx(0.2, rel=0.06)
    neighbours = np.corrcoef(found[:, :, 1:].ravel(), found[:, :, :-1].ravel())[0, 1]
    assert neighbours == pytest.approx(np.exp(-1 / (4 * correlation**2)), abs=0.02)


def test_noise_smoothed_over_a_thin_axis_keeps_its_standard_deviation() -> None:
    assert noise(Scene((3, 64, 64), 10, dim=64, sigma=0.2, correlation=2.0)).std() == pytest.approx(
        0.2, rel=0.06
    )


def test_channels_have_independent_noise() -> None:
    channels = np.corrcoef(noise(replace(CLEAN, sigma=0.2)).reshape(16, -1))
    assert np.abs(channels - np.eye(16)).max() < 0.06


def test_without_noise_and_blur_every_pixel_is_its_mean() -> None:
    assert not noise(CLEAN).any()


def test_blur_mixes_the_two_sides_of_a_boundary_and_nothing_else() -> None:
    drawn = synthesise(replace(CLEAN, kind="voronoi", blur=1.0))
    mixed = np.linalg.norm(drawn.embeddings - drawn.means.T[:, drawn.truth], axis=0)
    inside = ndimage.minimum_filter(drawn.truth, 13) == ndimage.maximum_filter(drawn.truth, 13)
    assert inside.any()
    assert mixed[inside].max() < 1e-3
    y, x = np.nonzero((drawn.truth[:, 1:] != drawn.truth[:, :-1])[4:-4, 4:-5])
    assert mixed[y + 4, x + 4].mean() > 1.0  # of a distance of 4 or more


def test_the_same_seed_draws_the_same_and_another_draws_another() -> None:
    scene = Scene((64, 64), 20, "leaves", blur=1.0, correlation=1.0)
    once, again, other = (synthesise(s) for s in (scene, scene, replace(scene, seed=1)))
    np.testing.assert_array_equal(once.embeddings, again.embeddings)
    np.testing.assert_array_equal(once.truth, again.truth)
    assert (once.truth != other.truth).any()
    assert (once.means[0] != other.means[0]).any()


def test_another_view_is_other_noise_on_the_same_embedding() -> None:
    scene = Scene((96, 80), 30, "voronoi", blur=1.0, sigma=0.2)
    network, teacher = (synthesise(replace(scene, view=view)) for view in (0, 1))
    np.testing.assert_array_equal(network.truth, teacher.truth)
    np.testing.assert_array_equal(network.means, teacher.means)
    difference = network.embeddings - teacher.embeddings
    assert difference.std() == pytest.approx(0.2 * math.sqrt(2), rel=0.02)


def test_noise_changes_neither_instances_nor_means() -> None:
    quiet = synthesise(CLEAN)
    loud = synthesise(replace(CLEAN, sigma=0.3, blur=2.0, correlation=3.0))
    np.testing.assert_array_equal(quiet.truth, loud.truth)
    np.testing.assert_array_equal(quiet.means, loud.means)


@settings(max_examples=60)
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 24)] * 2), st.tuples(*[st.integers(1, 10)] * 3)),
    kind=st.sampled_from(KINDS),
    share=st.floats(0, 1),
    dim=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_small_scene_is_well_formed(
    shape: tuple[int, ...], kind: Kind, share: float, dim: int, seed: int
) -> None:
    instances = 1 + int(share * min(50, math.prod(shape) - 1))
    scene = Scene(shape, instances, kind, dim=dim, seed=seed, sigma=0.0)
    drawn = synthesise(scene)
    assert_instances_are_well_formed(drawn)
    assert kind != "voronoi" or drawn.truth.all()
    np.testing.assert_array_equal(drawn.embeddings, drawn.means.T[:, drawn.truth])
    assert pdist(drawn.means).min(initial=np.inf) >= 4.0
