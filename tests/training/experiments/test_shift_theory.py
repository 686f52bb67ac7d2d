"""The theory of shift equivariance, exactly: counted on real networks, nothing is trained."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.experiments.shift_equivariance.counting import (
    answer_to,
    different,
    groups,
    most_instances,
    output_functions,
    random_network,
    smallest_input,
)
from training.experiments.shift_equivariance.exact import Shape, ids_on_ones, told_apart
from training.experiments.shift_equivariance.numbering import numbering_network

SHAPES = [(2, 1, 2), (2, 2, 2), (2, 3, 2), (2, 1, 3), (2, 2, 3), (3, 1, 2), (3, 2, 2), (3, 1, 3)]


@pytest.mark.parametrize(("ndim", "levels", "factor"), SHAPES)
def test_lemma_1_a_unet_numbers_all_pixels_of_a_period_window(
    ndim: int, levels: int, factor: int
) -> None:
    network = numbering_network(ndim, levels=levels, factor=factor)
    period = factor**levels
    size = smallest_input(network, [2 * period] * ndim)
    image = np.random.default_rng(0).normal(0, 100, (1, *size)).astype(np.float32)
    numbers = answer_to(network, image)[0]
    window = numbers[(slice(0, period),) * ndim]
    assert sorted(window.ravel()) == list(range(period**ndim))
    for axis in range(ndim):  # and again in the next window
        moved = np.roll(numbers, -period, axis=axis)[(slice(0, period),) * ndim]
        assert np.array_equal(moved, window)


def test_lemma_1_holds_for_another_factor_per_axis() -> None:
    network = numbering_network(2, levels=1, factor=(2, 3))
    numbers = answer_to(network, np.zeros((1, *smallest_input(network, [2, 3])), np.float32))
    assert sorted(numbers[0, :2, :3].ravel()) == list(range(6))


@pytest.mark.parametrize("upsampling", ["learnt", "nearest"])
@pytest.mark.parametrize(("ndim", "levels", "factor"), [(2, 1, 2), (2, 2, 2), (2, 1, 3), (3, 1, 2)])
def test_a_network_has_period_to_the_d_output_functions(
    ndim: int, levels: int, factor: int, upsampling: str
) -> None:
    network = random_network(ndim, levels=levels, factor=factor, upsampling=upsampling, seed=1)
    assert output_functions(network) == (factor**levels) ** ndim


@pytest.mark.parametrize(("ndim", "factor"), list(itertools.product((2, 3), (2, 3))))
def test_corollary_4_all_are_told_apart_at_a_coprime_spacing_and_none_at_multiples_of_the_period(
    ndim: int, factor: int
) -> None:
    networks = [
        numbering_network(ndim, levels=1, factor=factor),
        random_network(ndim, levels=1, factor=factor, upsampling="learnt", seed=2),
    ]
    for network in networks:
        assert told_apart(network, [5] * ndim) == factor**ndim
        assert told_apart(network, [2 * factor] * ndim) == 1


@pytest.mark.parametrize("spacing", range(13, 20))
def test_three_poolings_tell_64_discs_apart_at_odd_spacings_only(spacing: int) -> None:
    network = numbering_network(2, levels=3, factor=2)
    assert told_apart(network, [spacing] * 2) == {0: 64, 1: 16, 4: 1}[_twos(spacing)]


def _twos(spacing: int) -> int:
    """How often two divides a number; 16 and more count as 4."""
    return 0 if spacing % 2 else 4 if spacing % 8 == 0 else 1


@pytest.mark.parametrize(("factor", "expected"), [(2, 1), (3, 1), (5, 1), (7, 49)])
def test_corollary_5_a_product_of_primes_is_a_spacing_that_only_another_prime_can_tell_apart(
    factor: int, expected: int
) -> None:
    network = numbering_network(2, levels=1, factor=factor)
    assert told_apart(network, [2 * 3 * 5] * 2) == expected


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=1, max_size=3),
)
def test_the_bound_is_the_number_of_phases_that_the_grid_of_instances_meets(
    axes: list[tuple[int, int]],
) -> None:
    met = math.prod(len({k * s % p for k in range(p)}) for p, s in axes)
    assert most_instances([p for p, _ in axes], [s for _, s in axes]) == met


@pytest.mark.parametrize("shape", [Shape(2, 2, 2), Shape(2, 1, 3), Shape(3, 1, 2)])
def test_ones_get_as_many_ids_as_there_are_phases_from_learnt_and_one_from_fixed_upsampling(
    shape: Shape,
) -> None:
    for upsampling, expected in (("learnt", shape.functions), ("nearest", 1)):
        network = random_network(
            shape.ndim,
            levels=shape.levels,
            factor=shape.factor,
            upsampling=upsampling,
            seed=3,
        )
        assert ids_on_ones(network) == expected


def test_counting_joins_what_is_near_also_over_others() -> None:
    line = np.array([[0.0], [0.9], [1.8], [5.0]])
    assert groups(line, 1.0) == 2
    assert groups(line, 0.5) == 4
    assert different(np.array([[1.0], [1.0 + 1e-7], [2.0]])) == 2
    assert different(np.ones((4, 3))) == 1
