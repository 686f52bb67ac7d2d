"""What is true of every placement, whoever makes it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from packager.consumers import CONSUMERS, Consumer, core, ilastik, jdll
from packager.consumers.placement import AxisTile, DeclaredAxis, Placement, Refusal, Tile
from zoo_models.errors import GeometryError
from zoo_models.geometry import Box, TileGeometry, ValidUNetAxis

consumers = pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda c: c.NAME.split()[0])


@st.composite
def declarations(draw: st.DrawFn) -> tuple[DeclaredAxis, ...]:
    """Two or three axes, legal in the format, on no particular grid."""
    axes = []
    for _ in range(draw(st.integers(2, 3))):
        halo = draw(st.integers(0, 12))
        minimum = 2 * halo + draw(st.integers(1, 30))
        axes.append(DeclaredAxis(minimum, draw(st.integers(0, 9)), halo))
    return tuple(axes)


def placed(consumer: Consumer, axes: Sequence[DeclaredAxis], data: st.DataObject) -> Placement:
    """The consumer's tiles of some declared size, for an image that it does not refuse."""
    ns = [data.draw(st.integers(0, 5), label="n") for _ in axes]
    tiles = [a.minimum + n * a.step for a, n in zip(axes, ns, strict=True)]
    least = tiles if consumer is core else [-(-t // 3) for t in tiles]
    shape = tuple(n + data.draw(st.integers(0, 120), label="more") for n in least)
    if consumer is core:
        placement = core.place(axes, shape, n=ns)
    elif consumer is ilastik:
        placement = ilastik.place(axes, shape, target=max(tiles))
    else:
        placement = jdll.place(axes, shape, tile=tiles)
    assert isinstance(placement, Placement)
    assert placement.output == placement.image == shape
    return placement


@consumers
@given(axes=declarations(), data=st.data())
def test_the_written_boxes_cover_the_canvas(
    consumer: Consumer, axes: tuple[DeclaredAxis, ...], data: st.DataObject
) -> None:
    placement = placed(consumer, axes, data)
    for parts, size in zip(placement.axes, placement.output, strict=True):
        assert {p for part in parts for p in range(*part.write)} == set(range(size))


@consumers
@given(axes=declarations(), data=st.data())
def test_what_is_written_is_where_it_was_read_and_a_halo_away_from_the_tiles_border(
    consumer: Consumer, axes: tuple[DeclaredAxis, ...], data: st.DataObject
) -> None:
    placement = placed(consumer, axes, data)
    for axis, parts in zip(axes, placement.axes, strict=True):
        assert len({b - a for a, b in (part.read for part in parts)}) == 1
        for (start, stop), crop, write in ((p.read, p.crop, p.write) for p in parts):
            assert (start + crop[0], start + crop[1]) == write
            assert write[0] - start >= axis.halo <= stop - write[1]


def networks() -> st.SearchStrategy[ValidUNetAxis]:
    """Valid U-Nets along one axis, of all the kinds that can be built."""
    parts = (
        st.sampled_from([3, 5]),  # kernel
        st.integers(1, 2),  # convolutions
        st.integers(0, 3),  # levels
        st.integers(1, 3),  # factor
        st.integers(0, 5),  # context
    )
    return st.builds(ValidUNetAxis, *parts).filter(lambda network: network.halo < 200)


@consumers
@given(networks=st.lists(networks(), min_size=2, max_size=3), data=st.data())
def test_the_universal_declaration_puts_every_tile_on_the_period_grid(
    consumer: Consumer, networks: list[ValidUNetAxis], data: st.DataObject
) -> None:
    """For images whose sizes are multiples of step, and so of twice the period."""
    geometry = TileGeometry.from_network(networks)
    axes = [DeclaredAxis(a.minimum, a.step, a.halo) for a in geometry.axes]
    shape = [a.minimum + a.step * data.draw(st.integers(0, 40)) for a in axes]
    placement = core.place(axes, shape, n=[0] * len(axes))
    if consumer is ilastik:
        placement = ilastik.place(axes, shape, target=data.draw(st.integers(1, 600)))
    elif consumer is jdll:
        fixed = [DeclaredAxis(a.minimum, 0, a.halo) for a in axes]
        placement = jdll.place(data.draw(st.sampled_from([axes, fixed])), shape)
    large = isinstance(placement, Refusal) and placement.how in ("hangs", "fails")
    assume(not large)
    assert isinstance(placement, Placement)
    for period, parts in zip(geometry.period, placement.axes, strict=True):
        assert {part.read[0] % period for part in parts} == {0}


def test_a_placement_runs_its_tiles_with_the_last_axis_fastest() -> None:
    a, b = AxisTile((-1, 3), (1, 3), (0, 2)), AxisTile((1, 5), (1, 3), (2, 4))
    placement = Placement("test", (4, 2), (4, 2), "reflect", ((a, b), (a,)))
    assert len(placement) == 2
    assert list(placement) == [
        Tile(Box((-1, -1), (3, 3)), Box((1, 1), (3, 3)), Box((0, 0), (2, 2))),
        Tile(Box((1, -1), (5, 3)), Box((1, 1), (3, 3)), Box((2, 0), (4, 2))),
    ]


@pytest.mark.parametrize(
    ("size", "fits"), [(39, False), (40, True), (41, False), (48, True), (32, False)]
)
def test_a_size_fits_when_it_is_minimum_plus_steps(size: int, fits: bool) -> None:
    assert DeclaredAxis(40, 8).fits(size) == fits
    assert DeclaredAxis(40, 0).fits(size) == (size == 40)


@pytest.mark.parametrize(
    ("axis", "answer"),
    [
        (DeclaredAxis(40, 8), 41),
        (DeclaredAxis(40, 8, offset=-40), 1),
        (DeclaredAxis(40, 8, scale=0.5), 20),
        (DeclaredAxis(40, 8, scale=2, offset=3), 85),
    ],
)
def test_the_declared_answer_scales_then_adds_the_offset(axis: DeclaredAxis, answer: int) -> None:
    assert axis.answer(41) == answer


@pytest.mark.parametrize("values", [(0, 8), (40, -1), (40, 8, -1), (40, 8, 0, 0.0)])
def test_an_axis_that_no_description_can_have_is_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="give minimum >= 1"):
        DeclaredAxis(*values)


@consumers
@pytest.mark.parametrize("shape", [(100,), (100, 100, 100), (100, 0)])
def test_sizes_that_do_not_belong_to_the_axes_are_refused(
    consumer: Consumer, shape: tuple[int, ...]
) -> None:
    with pytest.raises(GeometryError, match="give one size"):
        consumer.place((DeclaredAxis(48, 8, 8),) * 2, shape)


def test_every_consumer_signs_its_placements_and_refusals() -> None:
    axes = (DeclaredAxis(92, 8, 45),) * 2
    for consumer in CONSUMERS:
        for shape in ((92 + 80, 92 + 80), (1, 1)):
            assert consumer.place(axes, shape).consumer == consumer.NAME
    assert len({consumer.NAME for consumer in CONSUMERS}) == 3
