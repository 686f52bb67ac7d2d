"""The mutex watershed against its definition, its objective by brute force, and two libraries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import mwatershed
import numpy as np
import pytest
from bioimage_cpp.segmentation import mutex_watershed as bioimage_cpp_mutex_watershed
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.zoo_models.postprocessing.conftest import (
    BACKGROUND,
    PLACES,
    assert_background_is_known_in_three_ways,
    assert_drops_what_is_smaller_than_min_size,
    assert_nothing_gives_nothing,
    assert_refuses_bad_input,
    assert_same_partition,
    components,
    embed,
    scene,
)
from zoo_models.postprocessing.mutex_watershed import (
    MutexWatershed,
    Nodes,
    partition,
    sorted_edges,
)

Edge = tuple[int, int, bool]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def random_graph(seed: int, nodes: int, edges: int) -> list[Edge]:
    """Edges of a random graph in the order they are looked at; two nodes may have several."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, nodes, edges)
    second = (first + draw.integers(1, nodes, edges)) % nodes
    attracts = draw.random(edges) < draw.uniform(0.2, 0.8)
    return list(zip(first.tolist(), second.tolist(), attracts.tolist(), strict=True))


def arrays(edges: list[Edge]) -> tuple[Nodes, Nodes, Mask]:
    first, second, attracts = zip(*edges, strict=True)
    return np.array(first, np.int32), np.array(second, np.int32), np.array(attracts)


def by_definition(nodes: int, edges: list[Edge]) -> list[int]:
    """Wolf et al.: an edge is active unless it closes a cycle with just one repelling edge."""
    segment = list(range(nodes))  # the smallest node that is reached by active attracting edges
    mutexes: list[tuple[int, int]] = []
    for a, b, attracts in edges:
        one, other = segment[a], segment[b]
        if not attracts and one != other:
            mutexes.append((a, b))
        if attracts and not any({segment[c], segment[d]} == {one, other} for c, d in mutexes):
            segment = [min(one, other) if s in (one, other) else s for s in segment]
    return segment


def all_partitions(nodes: int) -> Iterator[tuple[int, ...]]:
    """Every way to partition the nodes, once: each is in a segment known before, or the next."""
    for segments in itertools.product(range(nodes), repeat=nodes):
        if all(s <= max(segments[:i], default=-1) + 1 for i, s in enumerate(segments)):
            yield segments


def unhappiness(segments: Nodes | tuple[int, ...], edges: list[Edge]) -> int:
    """What a partition costs when every edge weighs more than all weaker ones together."""
    weights = (2**power for power in range(len(edges) - 1, -1, -1))
    return sum(
        weight
        for weight, (a, b, attracts) in zip(weights, edges, strict=True)
        if attracts != (segments[a] == segments[b])
    )


def distances_and_weights(embeddings: Floats, reach: int, delta_d: float) -> Iterator[tuple]:
    """(pixel, pixel, w) along every axis, in double precision, after Eq. 12 of SPOCO."""
    shape = embeddings.shape[1:]
    for axis, place in itertools.product(range(len(shape)), np.ndindex(shape)):
        other = tuple(p + reach * (a == axis) for a, p in enumerate(place))
        if other[axis] < shape[axis]:
            difference = [float(c[place]) - float(c[other]) for c in embeddings]
            w = 1 - max((2 * delta_d - math.hypot(*difference)) / (2 * delta_d), 0) ** 2
            yield place, other, w


def signed_affinities(embeddings: Floats, offsets: list[list[int]]) -> NDArray[np.float64]:
    """(offsets, [Z,] Y, X): 1 - w of direct neighbours, -w of the others, at the first pixel."""
    affinities = np.zeros((len(offsets), *embeddings.shape[1:]))
    for channel, offset in enumerate(offsets):
        axis, reach = int(np.flatnonzero(offset)[0]), max(offset)
        weights = distances_and_weights(np.moveaxis(embeddings, axis + 1, 1), reach, 2.0)
        moved = np.moveaxis(affinities[channel], axis, 0)
        for place, other, w in weights:
            if other[0] - place[0] == reach:
                moved[place] = 1 - w if reach == 1 else -w
    return affinities


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.integers(2, 25), edges=st.integers(1, 120))
def test_the_partition_is_that_of_the_definition(seed: int, nodes: int, edges: int) -> None:
    graph = random_graph(seed, nodes, edges)
    assert partition(nodes, *arrays(graph)).tolist() == by_definition(nodes, graph)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), edges=st.integers(1, 14))
def test_no_partition_of_a_tiny_graph_pleases_more_edges(seed: int, edges: int) -> None:
    graph = random_graph(seed, 5, edges)
    best = min(unhappiness(segments, graph) for segments in all_partitions(5))
    assert unhappiness(partition(5, *arrays(graph)), graph) == best


@pytest.mark.parametrize("shape", [(5, 7), (1, 31), (4, 3, 11)])
def test_edges_and_their_order_are_those_of_the_equation(shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(0)
    embeddings = draw.integers(0, 4, (2, *shape)).astype(np.float32)  # many ties
    inside = draw.random(shape) < 0.8
    expected = []
    for rank, reach in enumerate((1, 3, 9, 27)):
        for place, other, w in distances_and_weights(embeddings, reach, 2.0):
            strength = round(1 - w if reach == 1 else w, 5)
            if inside[place] and inside[other] and strength > 0:
                expected.append((-strength, rank, place, other))
    assert {rank for _, rank, *_ in expected} == {0, 1, 2, 3} - {
        r for r in (2, 3) if max(shape) < 3**r
    }
    expected.sort(key=lambda edge: edge[:2])  # stable: axis by axis, pixel by pixel
    first, second, attracts = sorted_edges(embeddings, inside, 2.0)
    pairs = [
        (np.ravel_multi_index(p, shape), np.ravel_multi_index(o, shape)) for *_, p, o in expected
    ]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == pairs
    assert attracts.tolist() == [rank == 0 for _, rank, *_ in expected]


# Both libraries keep the affinity of a pixel and the one `offset` further at the pixel's place.
# mwatershed wants repelling ones below 0, stops at an offset that is longer than its axis, and may
# call a segment 0. bioimage_cpp wants no signs, and lets direct neighbours join where they attract
# with strength 0, which here says nothing: so no two embeddings are 2 delta_d apart.
@pytest.mark.parametrize("shape", [(30, 33), (28, 29, 4), (12, 14)])
def test_labels_are_those_of_mwatershed_and_of_bioimage_cpp(shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(sum(shape))
    cells = draw.integers(0, len(PLACES), [-(-n // 6) for n in shape])
    categories = np.kron(cells, np.ones((6,) * len(shape), np.int64))
    categories = categories[tuple(slice(n) for n in shape)]
    embeddings = embed(categories, PLACES / np.float32(5))
    embeddings += draw.uniform(-0.5, 0.5, embeddings.shape).astype(np.float32)
    axes = range(len(shape))
    offsets = [
        [reach * (a == axis) for a in axes]
        for reach in (1, 3, 9, 27)
        for axis in axes
        if reach < shape[axis]
    ]
    affinities = signed_affinities(embeddings, offsets)
    found = MutexWatershed(min_size=1)(embeddings, np.ones(shape, bool))
    assert 3 < found.max() < found.size / 2
    of_mwatershed = mwatershed.agglom(affinities, offsets).astype(np.int64) + 1
    assert_same_partition(found, of_mwatershed)
    of_bioimage_cpp = bioimage_cpp_mutex_watershed(np.abs(affinities), offsets, len(shape))
    assert_same_partition(found, of_bioimage_cpp.astype(np.int64))


def test_touching_objects_with_embeddings_apart_are_told_apart() -> None:
    categories = np.kron(np.random.default_rng(1).integers(0, 5, (5, 6)), np.ones((5, 5), np.int64))
    labels = MutexWatershed(min_size=1, background=BACKGROUND)(embed(categories))
    assert_same_partition(labels, components(categories))


def test_repulsion_stops_what_leaks_through_a_blurred_boundary() -> None:
    ramp = np.array([0.0] * 12 + [1.0, 2.0, 3.0] + [4.0] * 12, np.float32)  # steps of delta_d / 2
    embeddings = np.repeat(ramp[None, None], 6, axis=1)
    labels = MutexWatershed(min_size=30)(embeddings, np.ones((6, 27), bool))
    assert labels[0, 0] != labels[0, -1]
    assert len(np.unique(labels[labels > 0])) == 2


def test_background_that_an_object_cuts_in_two_is_background_on_both_sides() -> None:
    categories = np.zeros((12, 30), np.int32)
    categories[:, 12:20] = 1
    embeddings = embed(categories)
    embeddings += np.random.default_rng(0).normal(0, 0.1, embeddings.shape).astype(np.float32)
    np.testing.assert_array_equal(MutexWatershed()(embeddings), categories)


def test_mutex_watershed_keeps_the_contract_of_a_clusterer() -> None:
    assert_refuses_bad_input(MutexWatershed)
    assert_nothing_gives_nothing(MutexWatershed)
    assert_background_is_known_in_three_ways(MutexWatershed)
    assert_drops_what_is_smaller_than_min_size(MutexWatershed)


def test_sixty_thousand_instances_are_found() -> None:
    cells = np.indices((245, 245)).sum(axis=0) % 2
    categories = np.kron(cells, np.ones((2, 2), np.int64)) + 1
    labels = MutexWatershed(min_size=1)(embed(categories), np.ones(categories.shape, bool))
    assert labels.max() == 245 * 245


def test_the_same_image_gives_the_same_labels_where_edges_are_equally_strong() -> None:
    labels = MutexWatershed(background=BACKGROUND)(embed(scene()))
    np.testing.assert_array_equal(labels, MutexWatershed(background=BACKGROUND)(embed(scene())))
