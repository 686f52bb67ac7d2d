"""The compiled basin merging gives the labels of the shipped file, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo_models.postprocessing.conftest import BACKGROUND, PLACES, embed
from zoo_models.compiled.basin_merging import BasinMerging as Compiled
from zoo_models.compiled.linkage import joined
from zoo_models.compiled.linkage import linked as compiled_linked
from zoo_models.compiled.regions import pairs_touching
from zoo_models.compiled.regions import regions as compiled_regions
from zoo_models.postprocessing.basin_merging import (
    BasinMerging,
    components,
    linked,
    regions,
    touching,
)

SPREAD = [0.9, -0.2, 0.1, 0.3, 0.5, 0.0, -0.1, 0.4, 1.3]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(st.tuples(*[st.integers(1, 33)] * 2), st.tuples(*[st.integers(1, 11)] * 3)),
    noise=st.sampled_from([0, 0.1, 1, 4]),
    known=st.sampled_from(
        [{}, {"background": BACKGROUND}, {"background": BACKGROUND, "spread": SPREAD}]
    ),
    masked=st.booleans(),
)
def test_labels_are_the_same_whatever_the_noise(
    seed: int, shape: tuple[int, ...], noise: float, known: dict[str, Any], masked: bool
) -> None:
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, len(PLACES), [-(-n // 4) for n in shape])
    categories = np.kron(cells, np.ones((4,) * len(shape), np.int64))[tuple(map(slice, shape))]
    clean = embed(categories)
    embeddings = (clean + draw.normal(0, noise, clean.shape)).astype(np.float32)
    mask = draw.random(shape) < 0.8 if masked else None
    chosen = {
        **known,
        "join": draw.choice([0.1, 0.8, 3.0]),
        "merge": draw.choice([1.0, 3.2, 8.5]),
        "tension": draw.choice([0.5, 1.6, 4.0, np.inf]),
        "solid": draw.choice([0, 0.9, 1.2]),
        "min_size": int(draw.integers(1, 20)),
    }
    expected = BasinMerging(**chosen)(embeddings, mask)
    np.testing.assert_array_equal(Compiled(**chosen)(embeddings, mask), expected)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 60))
def test_groups_are_linked_in_the_same_order(seed: int, number: int) -> None:
    draw = np.random.default_rng(seed)
    means, sizes = draw.normal(0, 1, (number, 2)), draw.integers(1, 50, number).astype(float)
    key = np.unique(draw.integers(0, number**2, 4 * number))
    first, second = key // number, key % number
    first, second = first[first < second], second[first < second]
    pairs = first, second, draw.integers(1, 9, len(first))
    limits, ndim = (1.0, draw.choice([0.5, 5.0])), int(draw.integers(2, 4))
    expected = linked(means, sizes, pairs, limits, ndim)
    found = compiled_linked(means, sizes, *pairs, limits, ndim)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(joined(number, first, second), components(number, first, second))


@pytest.mark.parametrize("ndim", [2, 3])
def test_linkage_at_its_worst_ends_as_the_definition_says(ndim: int) -> None:
    """Literally: look at all pairs of touching groups, merge the least tense, begin again."""
    draw = np.random.default_rng(3)
    means, sizes = draw.normal(0, 1, (25, 2)), draw.integers(1, 9, 25).astype(float)
    upper = np.triu(draw.random((25, 25)) < 0.3, 1) * draw.integers(1, 5, (25, 25))
    first, second = upper.nonzero()
    limits = 1.9, 0.9**ndim
    found = compiled_linked(means, sizes, first, second, upper[first, second], limits, ndim)
    touch, group = upper + upper.T, np.arange(25)
    centre, size = means.copy(), sizes.copy()
    while True:
        a, b = np.triu(touch, 1).nonzero()
        length = np.linalg.norm(centre[a] - centre[b], axis=1)
        side = np.minimum(size[a], size[b]) ** ((ndim - 1) / ndim)
        tension = np.where(length < 1.9, length * side / touch[a, b], np.inf)
        if len(a) == 0 or tension.min() >= 0.9:
            break
        one, other = a[tension.argmin()], b[tension.argmin()]
        total = centre[one] * size[one] + centre[other] * size[other]
        size[one] += size[other]
        centre[one] = total / size[one]
        group[group == other] = one
        touch[one] += touch[other]
        touch[:, one] += touch[:, other]
        touch[one, one] = 0
        touch[other] = touch[:, other] = 0
    np.testing.assert_array_equal(found, group)
    assert 1 < len(np.unique(group)) < 25


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12)),
    number=st.sampled_from([1, 2, 4, 200]),
)
def test_regions_and_what_touches_are_the_same(
    seed: int, shape: tuple[int, int, int], number: int
) -> None:
    categories = np.random.default_rng(seed).integers(0, number, shape).astype(np.int32)
    part, category, sizes = compiled_regions(categories)
    expected = regions(categories)
    np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(sizes, np.bincount(expected.ravel()))
    np.testing.assert_array_equal(category[part], categories)
    for labels in (categories, part + 1):
        for found, wanted in zip(pairs_touching(labels), touching(labels), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_label_with_more_than_a_few_neighbours_keeps_them_all() -> None:
    labels = np.ones((1, 21, 21), np.int32)
    labels[0, ::2, ::2] = np.arange(2, 2 + 121).reshape(11, 11)
    first, second, contact = pairs_touching(labels)
    assert second[first == 1].tolist() == list(range(2, 123))
    assert contact[first == 1].reshape(11, 11)[0].tolist() == [2, *[3] * 9, 2]
    assert contact[first == 1].reshape(11, 11)[1].tolist() == [3, *[4] * 9, 3]


def test_embeddings_that_are_not_finite_are_refused() -> None:
    embeddings = embed(np.zeros((5, 6), np.int32))
    embeddings[1, 2, 3] = np.nan
    for kind in (BasinMerging, Compiled):
        for known in ((), BACKGROUND):
            with pytest.raises(ValueError, match="1 of 30 pixels have embeddings that are not fin"):
                kind(background=known)(embeddings)
        with pytest.raises(ValueError, match=r"background has 2 numbers and a pixel's embedding 3"):
            kind(background=[0.0, 0.0])(embed(np.zeros((5, 6), np.int32)))
        with pytest.raises(ValueError, match=r"foreground has the shape \(6, 5\)"):
            kind(background=BACKGROUND)(embeddings, np.ones((6, 5), bool))


@pytest.mark.parametrize("margins", [(0.5, 0.0), (0.5, float("nan")), (-1.0, 2.0)])
def test_margins_that_cannot_be_are_refused(margins: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the margins the network was trained"):
        BasinMerging(*margins)


def test_all_distances_follow_from_delta_d_where_they_are_not_given() -> None:
    wide = BasinMerging(0.0, 4.0, join=0.3)
    assert (wide.join, wide.merge, wide.radius) == (0.3, 6.4, 7.6)


def test_sixty_thousand_objects_are_sixty_thousand_instances() -> None:
    cells = np.indices((245, 245)).sum(axis=0) % 2 + 1
    labels = Compiled(background=BACKGROUND, min_size=1)(
        embed(np.kron(cells, np.ones((4, 4), np.int64)))
    )
    assert labels.max() == 245**2
