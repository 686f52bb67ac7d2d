"""Geometry against formulas worked by hand, against running networks, and against its own laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_models.architectures.unet_valid import SameSizeUNet, UNetValid
from zoo_models.errors import GeometryError
from zoo_models.geometry import AxisTiling, Box, TileGeometry, ValidUNetAxis

axes = st.builds(
    ValidUNetAxis,
    kernel=st.sampled_from([1, 3, 5]),
    convolutions=st.integers(1, 3),
    levels=st.integers(0, 4),
    factor=st.integers(1, 3),
    context=st.integers(0, 40),
)
boxes = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 50)), min_size=1, max_size=3).map(
    lambda sides: Box(tuple(a for a, _ in sides), tuple(a + n for a, n in sides))
)


def sizes_through(axis: ValidUNetAxis, size: int) -> int | None:
    """The output size by walking through the network, or None where a pooling does not divide."""
    size -= 2 * axis.context
    for _ in range(axis.levels):
        size -= axis.block_loss
        if size <= 0 or size % axis.factor:
            return None
        size //= axis.factor
    size -= axis.block_loss
    for _ in range(axis.levels):
        if size <= 0:
            return None
        size = size * axis.factor - axis.block_loss
    return size if size > 0 else None


@pytest.mark.parametrize(("levels", "lost"), [(1, 16), (2, 40), (3, 88), (4, 184), (5, 376)])
def test_two_3x3_convolutions_lose_what_the_formula_says(levels: int, lost: int) -> None:
    assert 2 * ValidUNetAxis(3, 2, levels, 2).shrink == lost == 12 * 2**levels - 8


@given(axis=axes, size=st.integers(1, 900))
def test_valid_sizes_are_those_that_walk_through_the_network(
    axis: ValidUNetAxis, size: int
) -> None:
    walked = sizes_through(axis, size)
    assert axis.is_valid_input(size) == (walked is not None)
    if walked is not None:
        assert axis.output_size(size) == walked


@given(axis=axes)
def test_a_tile_on_the_grid_is_cropped_to_a_valid_size_and_keeps_multiples_of_the_period(
    axis: ValidUNetAxis,
) -> None:
    tiling = TileGeometry.from_network([axis, axis]).axes[0]
    for tile in (tiling.minimum, tiling.minimum + 3 * tiling.step):
        output = axis.output_size(tile - 2 * axis.crop_before)
        assert output - 2 * axis.crop_after == tiling.kept(tile) == tile - 2 * tiling.halo
        assert tiling.kept(tile) % axis.period == 0
    assert axis.crop_after >= 0
    assert axis.halo - axis.period < axis.crop_before + axis.shrink <= axis.halo


@given(networks=st.lists(axes, min_size=2, max_size=3))
def test_all_space_axes_declare_one_range(networks: list[ValidUNetAxis]) -> None:
    geometry = TileGeometry.from_network(networks)
    assert len(set(geometry.minimum)) == 1
    assert len(set(geometry.step)) == 1
    assert geometry.shrink == tuple(n.shrink for n in networks)


@pytest.mark.parametrize(
    ("levels", "halo", "step", "minimum"), [(3, 48, 16, 112), (4, 96, 32, 224)]
)
def test_the_universal_declaration_is_the_measured_one(
    levels: int, halo: int, step: int, minimum: int
) -> None:
    axis = TileGeometry.from_network([ValidUNetAxis(3, 2, levels, 2)] * 2).axes[0]
    assert (axis.halo, axis.step, axis.minimum) == (halo, step, minimum)


def test_where_the_grid_fits_without_cropping_the_halo_is_the_shrink() -> None:
    """l = 2: 2c = 40 and valid sizes are multiples of P = 4 already (24 would be exact too)."""
    axis = TileGeometry.from_network([ValidUNetAxis(3, 2, 2, 2)] * 2).axes[0]
    assert (axis.halo, axis.shrink, axis.step, axis.minimum) == (20, 20, 8, 48)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"halo": 40}, "less than the shrink"),
        ({"halo": 46}, "no multiple of the period"),
        ({"step": 8}, "no multiple of 2 \\* period"),
        ({"minimum": 120}, "no multiple of step"),
        ({"minimum": 96}, "fewer than 2 \\* period"),
    ],
)
def test_values_off_the_grid_are_refused(values: dict[str, int], complaint: str) -> None:
    right = {"minimum": 112, "step": 16, "period": 8, "shrink": 44, "halo": 48}
    AxisTiling(**right)
    with pytest.raises(GeometryError, match=complaint):
        AxisTiling(**{**right, **values})


def test_all_problems_of_an_axis_are_told_at_once() -> None:
    with pytest.raises(
        GeometryError, match=r"step 7 .*halo 3 is no multiple.*less than the shrink"
    ):
        AxisTiling(minimum=112, step=7, period=8, shrink=44, halo=3)


def test_a_size_that_does_not_fit_is_answered_with_the_sizes_that_do() -> None:
    with pytest.raises(GeometryError, match=r"input of 101 .* use 100 or 108"):
        ValidUNetAxis(3, 2, 3, 2).output_size(101)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(GeometryError, match="kernel 4"):
        ValidUNetAxis(4, 2, 3, 2)


@given(tiling=axes.map(lambda a: TileGeometry.from_network([a, a]).axes[0]), n=st.integers(1, 4000))
def test_the_smallest_tile_for_a_width_keeps_that_width(tiling: AxisTiling, n: int) -> None:
    tile = tiling.smallest_tile(n)
    assert tiling.kept(tile) >= n
    assert tile == tiling.minimum or tiling.kept(tile - tiling.step) < n


@given(tiling=axes.map(lambda a: TileGeometry.from_network([a, a]).axes[0]), n=st.integers(1, 4000))
def test_the_largest_tile_stays_below_the_limit(tiling: AxisTiling, n: int) -> None:
    tile = tiling.largest_tile(n)
    tiling.kept(tile)
    assert tile <= n or tile == tiling.minimum


@given(box=boxes, margin=st.integers(0, 9))
def test_growing_and_shrinking_a_box_gives_it_back(box: Box, margin: int) -> None:
    margins = [margin] * len(box.start)
    grown = box.grow(margins)
    assert grown.contains(box)
    assert grown.grow([-m for m in margins]) == box
    assert grown.intersect(box) == box


@given(box=boxes, offset=st.integers(-9, 9))
def test_a_shifted_box_keeps_its_shape(box: Box, offset: int) -> None:
    moved = box.shift([offset] * len(box.start))
    assert moved.shape == box.shape
    assert moved.relative_to([offset] * len(box.start)) == box


def test_boxes_that_do_not_meet_have_an_empty_intersection() -> None:
    assert Box((0, 0), (4, 4)).intersect(Box((9, 0), (12, 4))).size == 0


NETWORKS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "ndim": st.just(2),
        "levels": st.integers(1, 2),
        "factor": st.sampled_from([2, 3, [1, 2], [2, 3]]),
        "kernel": st.sampled_from([3, [1, 3], [5, 3]]),
        "convolutions": st.integers(1, 2),
        "upsampling": st.sampled_from(["learnt", "nearest"]),
        "local_radius": st.sampled_from([0, 3, [0, 4]]),
    }
)


def per_axis(value: int | list[int], ndim: int) -> list[int]:
    return [value] * ndim if isinstance(value, int) else value


def axes_of(kwargs: dict[str, Any]) -> list[ValidUNetAxis]:
    ndim = kwargs["ndim"]
    columns = [per_axis(kwargs[k], ndim) for k in ("kernel", "factor", "local_radius")]
    return [
        ValidUNetAxis(k, kwargs["convolutions"], kwargs["levels"], f, r)
        for k, f, r in zip(*columns, strict=True)
    ]


def check_by_running(kwargs: dict[str, Any]) -> None:
    small: dict[str, Any] = {"embedding_dim": 2, "width": 2, "max_width": 4}
    network = UNetValid(**kwargs, **small).eval()
    networks = axes_of(kwargs)
    assert network.shrink == [n.shrink for n in networks]
    assert network.period == [n.period for n in networks]
    size = [n.smallest_input for n in networks]
    expected = [n.output_size(s) for n, s in zip(networks, size, strict=True)]
    with torch.no_grad():
        assert list(network(torch.rand(1, 1, *size)).shape[2:]) == expected
        for axis, n in enumerate(networks):
            for wrong in range(1, n.period):
                off = [s + wrong * (a == axis) for a, s in enumerate(size)]
                with pytest.raises(RuntimeError):
                    network(torch.rand(1, 1, *off))
    same = SameSizeUNet(**kwargs, **small)
    assert tuple(same.halo) == TileGeometry.from_network(networks).halo


@settings(max_examples=25, deadline=None)
@given(kwargs=NETWORKS)
def test_a_running_2d_network_has_the_sizes_that_geometry_says(kwargs: dict[str, Any]) -> None:
    check_by_running(kwargs)


@pytest.mark.parametrize(
    ("levels", "factor", "kernel", "convolutions"),
    [(2, [1, 2, 2], 3, 1), (1, 2, [1, 3, 3], 2), (1, [3, 2, 2], 3, 1)],
)
def test_a_running_3d_network_has_the_sizes_that_geometry_says(
    levels: int, factor: list[int], kernel: list[int], convolutions: int
) -> None:
    check_by_running(
        {
            "ndim": 3,
            "levels": levels,
            "factor": factor,
            "kernel": kernel,
            "convolutions": convolutions,
            "upsampling": "learnt",
            "local_radius": 0,
        }
    )
