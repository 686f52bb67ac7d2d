"""Instances are kept where the teacher agrees, as Algorithm 1 of the paper says, literally."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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
    scene,
    scene_truth,
)
from zoo_models.postprocessing import consistency
from zoo_models.postprocessing.consistency import ConsistencyClustering

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def stacked(network: Floats, teacher: Floats) -> Floats:
    return np.concatenate([network, teacher])


class Agreeing:
    """Consistency clustering with the network itself as teacher: mean-shift, then."""

    def __init__(self, **changes: Any) -> None:
        self.clusterer = ConsistencyClustering(**changes)

    def __call__(self, embeddings: Floats, foreground: Mask | None = None) -> Labels:
        return self.clusterer(stacked(embeddings, embeddings), foreground)


def noisy(categories: Labels, places: Floats, sigma: float, seed: int) -> Floats:
    noise = np.random.default_rng(seed).normal(0, sigma, (places.shape[1], *categories.shape))
    return embed(categories, places) + noise.astype(np.float32)


def mean_shift_literally(pixels: Doubles, radius: float) -> list[Mask]:
    """Every pixel climbs; of ends near each other the heaviest stays; each takes its nearest."""
    ends = []
    for pixel in pixels:
        place, before = pixel, pixel + np.inf
        while np.linalg.norm(place - before) > 1e-3 * radius:
            near = ((pixels - place) ** 2).sum(axis=1) <= radius**2
            before, place = place, pixels[near].mean(axis=0)
        ends.append((near.sum(), *place))
    modes: list[Doubles] = []
    for _, *end in sorted(ends, reverse=True):
        if all(np.linalg.norm(mode - end) > radius for mode in modes):
            modes.append(np.array(end))
    nearest = np.argmin([np.linalg.norm(pixels - mode, axis=1) for mode in modes], axis=0)
    return [nearest == number for number in range(len(modes))]


def algorithm_1(
    embeddings: Floats, foreground: Mask, *, delta_v: float, anchors: int, seed: int
) -> tuple[list[Mask], list[float]]:
    """Kept objects ([Z,] Y, X), and the median IoU of all: S 3.3 and A.4, line by line."""
    both = embeddings[:, foreground].T.astype(np.float64)  # pixels of the foreground, row by row
    network, teacher = np.split(both, 2, axis=1)
    kept, medians = [], []
    for pixels_of_object in mean_shift_literally(network, delta_v):
        (places,) = np.nonzero(pixels_of_object)
        draw = np.random.default_rng((seed, int(places[0])))
        ious = []
        for anchor in places[draw.integers(len(places), size=anchors)]:
            near = np.linalg.norm(teacher - teacher[anchor], axis=1) <= delta_v
            ious.append((near & pixels_of_object).sum() / (near | pixels_of_object).sum())
        medians.append(float(np.median(ious)))
        if medians[-1] > 0.6:
            image = np.zeros(foreground.shape, bool)
            image[foreground] = pixels_of_object
            kept.append(image)
    return kept, medians


def two_views(seed: int, ndim: int) -> tuple[Floats, Mask]:
    """A network and a teacher that see some cells alike, and the foreground."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 4, draw.integers(2, 6 - ndim, ndim))
    categories = np.kron(cells, np.ones((6 - ndim,) * ndim, np.int64))
    places = np.array([(0, 0, 0), (4, 0, 0), (0, 4, 0), (0, 0, 4)], np.float32)
    theirs = places[draw.permutation(4)]
    theirs[1] = theirs[0] + (draw.uniform(0, 0.8), 0, 0)  # two that the teacher hardly tells apart
    seen = np.where(draw.random(categories.shape) < draw.uniform(0, 0.3), 2, categories)
    embeddings = stacked(
        noisy(categories, places, 0.1, seed), noisy(seen, theirs, draw.uniform(0.05, 0.2), seed + 1)
    )
    return embeddings, draw.random(categories.shape) < 0.9


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 2), ndim=st.sampled_from([2, 3]), anchors=st.integers(1, 12))
def test_what_is_kept_is_what_the_algorithm_keeps(seed: int, ndim: int, anchors: int) -> None:
    embeddings, foreground = two_views(seed, ndim)
    objects, _ = algorithm_1(embeddings, foreground, delta_v=0.5, anchors=anchors, seed=seed)
    expected = np.zeros(foreground.shape, np.int32)
    for number, pixels in enumerate(objects, start=1):
        expected[pixels] = number
    clusterer = ConsistencyClustering(min_size=1, anchors=anchors, seed=seed)
    assert_same_partition(clusterer(embeddings, foreground), components(expected))


def test_the_views_have_objects_on_both_sides_of_the_threshold() -> None:
    """What the test before compares is not always everything, nor nothing."""
    medians = [
        median
        for seed in range(20)
        for median in algorithm_1(*two_views(seed, 2), delta_v=0.5, anchors=5, seed=seed)[1]
    ]
    assert 0.2 < np.mean(np.array(medians) > 0.6) < 0.8
    assert sum(0.3 < median < 0.9 for median in medians) > 10


def test_objects_that_the_teacher_sees_alike_are_kept_and_others_are_background() -> None:
    theirs = PLACES[[0, 3, 1, 2, 4]]  # other embeddings, the same objects
    assert_same_partition(
        ConsistencyClustering(background=BACKGROUND)(
            stacked(embed(scene()), embed(scene(), theirs))
        ),
        scene_truth(),
    )
    split = scene()
    split[4:8, 10:18] = 3  # the teacher tells the halves of object 2 apart
    kept = np.where(scene() == 2, 0, scene_truth())
    found = ConsistencyClustering(background=BACKGROUND)(stacked(embed(scene()), embed(split)))
    assert_same_partition(found, kept)


def test_an_object_that_the_teacher_merges_with_a_larger_one_is_dropped_and_the_larger_stays() -> (
    None
):
    categories = np.ones((10, 20), np.int32)
    categories[:, 15:] = 2
    blind = np.ones_like(categories)
    found = ConsistencyClustering()(
        stacked(embed(categories), embed(blind)), np.ones(categories.shape, bool)
    )
    np.testing.assert_array_equal(found, categories == 1)  # IoU 0.75 and 0.25


def test_small_objects_in_a_large_image_that_the_teacher_sees_in_pairs_are_dropped() -> None:
    """So small that the first look, at some of the pixels, cannot tell."""
    objects = np.arange(100)
    places = 4 * np.random.default_rng(0).permutation(np.eye(100, dtype=np.float32))
    paired = np.where(objects < 60, objects // 2 * 2, objects)  # 0 with 1, ..., 58 with 59
    categories = np.kron(objects.reshape(10, 10), np.ones((5, 5), np.int64))
    both = stacked(embed(categories, places), embed(paired[categories], places))
    assert categories.size > consistency.PART * 25 * 2
    found = ConsistencyClustering()(both, np.ones(categories.shape, bool))
    assert_same_partition(found, np.where(categories < 60, 0, categories))


def test_agreement_is_more_than_the_threshold() -> None:
    categories = np.ones((10, 20), np.int32)
    categories[:, 15:] = 2  # the teacher sees one object: IoU 0.75 for the larger
    both = stacked(embed(categories), embed(np.ones_like(categories)))
    everywhere = np.ones(categories.shape, bool)
    assert ConsistencyClustering(agreement=0.74)(both, everywhere).any()
    assert not ConsistencyClustering(agreement=0.75)(both, everywhere).any()


def test_pixels_outside_the_foreground_are_in_no_neighbourhood() -> None:
    categories = scene()
    elsewhere = np.where(categories == 2, 2, 1)  # to the teacher, object 1 looks like background
    both = stacked(embed(categories), embed(elsewhere))
    everything = ConsistencyClustering()(both)
    np.testing.assert_array_equal(everything > 0, categories == 2)
    assert_same_partition(ConsistencyClustering()(both, categories > 0), scene_truth())
    assert_same_partition(ConsistencyClustering(background=BACKGROUND)(both), scene_truth())


def test_the_seed_decides_which_anchors_are_drawn_and_nothing_else_does() -> None:
    half = np.ones((10, 20), np.int32)
    teacher = half.copy()
    teacher[:, :14] = 2  # an anchor on the left finds 0.7 of the object, one on the right 0.3
    both = stacked(embed(half), embed(teacher))
    everywhere = np.ones(half.shape, bool)
    found = [ConsistencyClustering(anchors=1, seed=s)(both, everywhere).any() for s in range(40)]
    assert 0.5 < np.mean(found) < 0.9
    assert found == [
        ConsistencyClustering(anchors=1, seed=s)(both, everywhere).any() for s in range(40)
    ]
    assert ConsistencyClustering(anchors=200)(both, everywhere).all()


def test_an_object_is_judged_the_same_whatever_else_lies_behind_it() -> None:
    """Its draw depends on no other object that begins later."""
    draw = np.random.default_rng(0)
    first = np.ones((10, 20), np.int32)
    teacher = np.where(draw.random(first.shape) < 0.7, 1, 3)  # IoU of most anchors 0.7, or 0.3
    alone = stacked(embed(first), embed(teacher))
    more = stacked(
        embed(np.concatenate([first, np.full((9, 20), 2)])),
        embed(np.concatenate([teacher, np.full((9, 20), 4)])),
    )
    verdicts = set()
    for seed in range(20):
        clusterer = ConsistencyClustering(anchors=1, seed=seed)
        kept = clusterer(alone, np.ones((10, 20), bool)).any()
        assert clusterer(more, np.ones((19, 20), bool))[:10].any() == kept
        verdicts.add(bool(kept))
    assert verdicts == {True, False}


@pytest.mark.parametrize("channels", [0, 1, 3, 17])
def test_channels_of_one_network_alone_are_refused(channels: int) -> None:
    embeddings = np.zeros((channels, 5, 5), np.float32)
    with pytest.raises(ValueError, match=rf"{channels} channels found.* with --teacher"):
        ConsistencyClustering()(embeddings)


def test_a_teacher_that_is_not_finite_is_refused() -> None:
    teacher = embed(scene())
    teacher[0, 2, :3] = np.nan
    with pytest.raises(ValueError, match="3 of 960 pixels"):
        ConsistencyClustering()(stacked(embed(scene()), teacher))


def test_no_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="anchors is 0, expected at least 1"):
        ConsistencyClustering(anchors=0)


def test_consistency_keeps_the_contract_of_a_clusterer() -> None:
    assert_refuses_bad_input(Agreeing)
    assert_nothing_gives_nothing(Agreeing)
    assert_background_is_known_in_three_ways(Agreeing)
    assert_drops_what_is_smaller_than_min_size(Agreeing)


def test_sixty_thousand_instances_are_found() -> None:
    cells = np.indices((245, 245)).sum(axis=0) % 2
    categories = np.kron(cells, np.ones((2, 2), np.int64)) + 1
    everywhere = np.ones(categories.shape, bool)
    assert Agreeing(min_size=1)(embed(categories), everywhere).max() == 245 * 245


@pytest.mark.parametrize("collapsed", [False, True])
def test_many_objects_are_judged_in_time_also_by_a_teacher_that_has_collapsed(
    collapsed: bool,
) -> None:
    """Without looking at some pixels first a collapsed teacher costs objects times pixels."""
    draw = np.random.default_rng(0)
    cluster = np.repeat(np.arange(1000), 25)
    places = draw.normal(0, 0 if collapsed else 6, (1000, 16))[cluster]
    teacher = places + draw.normal(0, 0.03, places.shape)
    start = time.process_time()
    kept = ConsistencyClustering()._agreed(cluster, teacher)
    assert time.process_time() - start < 10
    assert kept.all() != collapsed
    assert kept.any() != collapsed


COMMON = (
    "_Cloud", "_squared", "_modes", "_climb", "_strongest", "_check_margins", "_inside", "_pieces",
)  # fmt: skip


@pytest.mark.parametrize("name", COMMON)
def test_the_mean_shift_in_it_is_that_of_the_method_of_this_name(name: str) -> None:
    """Shipped files travel alone, so the code is there twice; it must not drift apart."""
    folder = Path(consistency.__file__).parent
    found = set()
    for file in ("mean_shift.py", "consistency.py"):
        body = ast.parse((folder / file).read_text()).body
        (part,) = [p for p in body if getattr(p, "name", "") == name]
        found.add(ast.unparse(part))
    assert len(found) == 1
