"""JDLL's placement, against runs of JDLL 0.6 itself (unmodified Java, format 0.5).

The network of the measured table is a valid U-Net of two poolings: it loses 20 pixels per side, its
period is 4 and its inputs are 44 + n * 4 wide. `centred` answers at the size of the input.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packager.consumers import jdll
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import stitch
from tests.packager.consumers.conftest import EXACT, Toy, distance, noise

ON_GRID, OFF_GRID = (200, 200), (203, 219)

Toys = Callable[[int], Toy]


def both(minimum: int, step: int, halo: int, offset: int = 0) -> tuple[DeclaredAxis, ...]:
    return (DeclaredAxis(minimum, step, halo, offset=offset),) * 2


@pytest.mark.parametrize(
    ("axes", "tile", "shape", "tiles", "wrong"),
    [
        (both(44, 4, 20), None, ON_GRID, 1, 0.0),
        (both(44, 4, 20), (84, 84), ON_GRID, 25, 0.0),
        (both(44, 4, 20), None, OFF_GRID, 4, 0.99),
        (both(44, 4, 20), (84, 84), OFF_GRID, 25, 0.37),
        (both(44, 4, 21), (100, 100), ON_GRID, 16, 0.99),
        (both(44, 4, 21), (100, 100), OFF_GRID, 16, 0.92),
        (both(128, 0, 20), None, ON_GRID, 9, 0.0),
        (both(128, 0, 20), None, OFF_GRID, 9, 0.66),
    ],
)
def test_a_network_with_input_sized_output_tiles_as_jdll_was_seen_to_tile_it(
    toy: Toys,
    axes: tuple[DeclaredAxis, ...],
    tile: tuple[int, int] | None,
    shape: tuple[int, ...],
    tiles: int,
    wrong: float,
) -> None:
    image, placement = noise(shape), jdll.place(axes, shape, tile=tile)
    assert isinstance(placement, Placement)
    stitched = stitch(toy(2).centred, image, placement)
    gap = distance(stitched.output, toy(2).whole(image, "symmetric"))
    assert (len(placement), stitched.failed) == (tiles, ())
    assert (gap > EXACT).mean() == pytest.approx(wrong, abs=0.01 if wrong else 0)


@pytest.mark.parametrize("halo", [0, 4, 20, 24])
@pytest.mark.parametrize("shape", [ON_GRID, OFF_GRID])
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_every_offset_ends_in_an_error(
    halo: int, shape: tuple[int, ...], tile: tuple[int, int] | None
) -> None:
    refusal = jdll.place(both(44, 4, halo, -40), shape, tile=tile)
    assert isinstance(refusal, Refusal)
    assert refusal.how in ("fails", "refuses")


def test_the_offset_of_format_05_is_doubled() -> None:
    refusal = jdll.place(both(44, 4, 0, -40), ON_GRID)
    assert isinstance(refusal, Refusal)
    assert refusal.how == "fails"
    assert "canvas of 120 pixels" in refusal.reason
    assert "the network gives 160" in refusal.reason


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_every_scale_ends_in_an_error(scale: float) -> None:
    refusal = jdll.place((DeclaredAxis(48, 8, 8, scale),) * 2, ON_GRID)
    assert isinstance(refusal, Refusal)
    assert refusal.how == "fails"


@pytest.mark.parametrize("axes", [both(92, 8, 44), both(188, 16, 92)])
def test_a_minimum_that_is_no_multiple_of_step_refuses_every_image(
    axes: tuple[DeclaredAxis, ...],
) -> None:
    answers = [jdll.place(axes, (size, size)) for size in range(1, 1000)]
    assert all(isinstance(a, Refusal) and a.how == "refuses" for a in answers)


@pytest.mark.parametrize(
    ("step", "size", "tiles"), [(1, 7054, 1), (2, 7054, 1), (4, 7052, 1), (4, 7054, 4)]
)
def test_an_image_of_50_megapixels_is_one_tile_when_its_size_is_on_the_grid(
    step: int, size: int, tiles: int
) -> None:
    placement = jdll.place(both(44, step, 20), (size, size))
    assert isinstance(placement, Placement)
    assert len(placement) == tiles


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_larger_image_hangs_unless_its_tile_is_given(step: int) -> None:
    refusal = jdll.place(both(44, step, 20), (7060, 7060))
    assert isinstance(refusal, Refusal)
    assert refusal.how == "hangs"
    assert isinstance(jdll.place(both(44, step, 20), (7060, 7060), tile=(512, 512)), Placement)


def test_channels_count_in_the_limits() -> None:
    axes, shape = both(44, 4, 20), (4096, 4096 * 2)
    assert isinstance(jdll.place(axes, shape), Placement)
    hangs = jdll.place(axes, shape, channels=2)
    assert isinstance(hangs, Refusal)
    assert hangs.how == "hangs"
    assert isinstance(jdll.place(axes, shape, output_channels=15), Placement)
    fails = jdll.place(axes, shape, output_channels=16)
    assert isinstance(fails, Refusal)
    assert fails.how == "fails"


def test_a_fixed_size_tiles_images_of_any_size() -> None:
    placement = jdll.place(both(128, 0, 20), (20000, 20000))
    assert isinstance(placement, Placement)
    assert len(placement) == 51_984


@pytest.mark.parametrize(
    ("axes", "shape", "tile", "reason"),
    [
        (both(128, 0, 20), (42, 200), None, "3 times"),
        (both(44, 4, 20), ON_GRID, (86, 84), "44 + n * 4"),
        (both(128, 0, 20), ON_GRID, (132, 128), "use 128"),
        (both(44, 4, 20), ON_GRID, (40, 84), "halo"),
    ],
)
def test_a_tile_that_does_not_fit_is_refused(
    axes: tuple[DeclaredAxis, ...],
    shape: tuple[int, ...],
    tile: tuple[int, int] | None,
    reason: str,
) -> None:
    refusal = jdll.place(axes, shape, tile=tile)
    assert isinstance(refusal, Refusal)
    assert refusal.how == "refuses"
    assert reason in refusal.reason


@pytest.mark.parametrize(
    ("size", "tile"),
    [(200, 248), (203, 248), (24, 72), (20, 56), (16, 48 + 8)],
)
def test_the_default_tile_is_the_image_with_its_halo_and_at_most_three_images(
    size: int, tile: int
) -> None:
    axes = both(56, 8, 24)
    assert jdll.default_tile(axes, (size, size)) == (tile, tile)
    assert isinstance(jdll.place(axes, (size, size)), Placement) == (tile <= 3 * size)


def test_a_halo_too_large_for_a_small_image_gives_a_tile_that_only_covers_it() -> None:
    assert jdll.default_tile(both(8, 8, 24), (16, 13)) == (16, 16)


def test_an_odd_pixel_of_padding_goes_before_the_image() -> None:
    placement = jdll.place(both(64, 0, 4), (41, 41))
    assert isinstance(placement, Placement)
    (tile,) = placement.axes[0]
    assert (tile.read, tile.crop, tile.write) == ((-12, 52), (12, 53), (0, 41))
