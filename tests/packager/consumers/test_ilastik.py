"""ilastik's placement, against runs of ilastik itself (version 1.4.2 with tiktorch 26.5).

The table was measured with a valid U-Net of two poolings: it loses 20 pixels per side, its period
is 4 and its inputs are 44 + n * 4 wide. `centred` answers at the size of the input, `valid` 40
pixels less.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.consumers import ilastik
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import read_padded, stitch
from tests.packager.consumers.conftest import EXACT, Toy, distance, noise, wrong_tiles

ON_GRID, OFF_GRID = (200, 200), (203, 219)
LAST_OF_25 = [i for i in range(25) if 4 in divmod(i, 5)]

Toys = Callable[[int], Toy]


def both(minimum: int, step: int, halo: int, offset: int = 0) -> tuple[DeclaredAxis, ...]:
    return (DeclaredAxis(minimum, step, halo, offset=offset),) * 2


def placed(
    axes: tuple[DeclaredAxis, ...], shape: tuple[int, ...], *, channels: int = 1
) -> Placement:
    placement = ilastik.place(axes, shape, channels=channels)
    assert isinstance(placement, Placement)
    return placement


@pytest.mark.parametrize(
    ("axes", "shape", "tiles", "wrong"),
    [
        (both(44, 4, 20), ON_GRID, 1, []),
        (both(44, 4, 20), OFF_GRID, 1, [0]),
        (both(88, 0, 20), ON_GRID, 25, []),
        (both(88, 0, 20), OFF_GRID, 25, LAST_OF_25),
        (both(84, 0, 20), ON_GRID, 25, LAST_OF_25),
        (both(84, 0, 20), OFF_GRID, 25, LAST_OF_25),
        (both(88, 0, 21), ON_GRID, 25, list(range(24))),
        (both(88, 0, 21), OFF_GRID, 25, list(range(25))),
    ],
)
def test_a_network_with_input_sized_output_tiles_as_ilastik_was_seen_to_tile_it(
    toy: Toys,
    axes: tuple[DeclaredAxis, ...],
    shape: tuple[int, ...],
    tiles: int,
    wrong: list[int],
) -> None:
    image, placement = noise(shape), placed(axes, shape)
    stitched = stitch(toy(2).centred, image, placement)
    assert (len(placement), stitched.failed) == (tiles, ())
    assert wrong_tiles(placement, stitched, toy(2).whole(image, "reflect")) == wrong


@pytest.mark.parametrize("shape", [ON_GRID, OFF_GRID])
def test_an_offset_without_halo_places_the_answer_of_one_tile_c_pixels_off(
    toy: Toys, shape: tuple[int, ...]
) -> None:
    image, placement, c = noise(shape), placed(both(44, 4, 0, -40), shape), 20
    stitched = stitch(toy(2).valid, image, placement)
    start = placement.axes[0][0].read[0]
    expected = toy(2).whole(image, "reflect", start=start)
    assert (len(placement), stitched.failed) == (1, ())
    assert distance(stitched.output[:, :-c, :-c], expected[:, c:, c:]).max() < EXACT


@pytest.mark.parametrize(
    ("axes", "shape", "tiles", "failed"),
    [
        (both(88, 0, 0, -40), ON_GRID, 9, 9),
        (both(88, 0, 0, -40), OFF_GRID, 9, 9),
        (both(84, 0, 0, -40), ON_GRID, 9, 9),
        (both(84, 0, 0, -40), OFF_GRID, 9, 9),
        (both(88, 0, 20, -40), ON_GRID, 25, 24),
        (both(88, 0, 20, -40), OFF_GRID, 25, 25),
    ],
)
def test_an_offset_makes_the_tiles_of_a_fixed_size_fail(
    toy: Toys, axes: tuple[DeclaredAxis, ...], shape: tuple[int, ...], tiles: int, failed: int
) -> None:
    placement = placed(axes, shape)
    stitched = stitch(toy(2).valid, noise(shape), placement)
    assert (len(placement), len(stitched.failed)) == (tiles, failed)


@pytest.mark.parametrize(
    ("halo", "tiles", "exact"), [(44, 16, False), (46, 25, True), (48, 25, False)]
)
def test_only_a_kept_part_of_twice_the_period_is_exact(
    toy: Toys, halo: int, tiles: int, exact: bool
) -> None:
    image, placement = noise((208, 208)), placed(both(140, 0, halo), (208, 208))
    stitched = stitch(toy(3).centred, image, placement)
    assert len(placement) == tiles
    gaps = [  # whichever of the 8 phases of the network is called right
        distance(stitched.output, toy(3).whole(image, "reflect", start=start)).max()
        for start in range(-51, -43)
    ]
    assert (min(gaps) < EXACT) == exact


def test_one_n_is_common_to_all_axes() -> None:
    anisotropic = (DeclaredAxis(16, 8), DeclaredAxis(32, 16), DeclaredAxis(64, 16))
    assert ilastik.tile_sizes(anisotropic) == (16, 32, 64)
    assert ilastik.tile_sizes(anisotropic[:2]) == (16 + 30 * 8, 32 + 30 * 16)
    assert ilastik.tile_sizes(anisotropic, target=100) == (16 + 3 * 8, 32 + 3 * 16, 64 + 3 * 16)
    fixed = (DeclaredAxis(20, 0), DeclaredAxis(32, 16), DeclaredAxis(20, 0))
    assert ilastik.tile_sizes(fixed) == (20, 64, 20)


def test_default_tiles_reach_512_in_2d_and_64_in_3d() -> None:
    universal = DeclaredAxis(56, 8, 24)
    assert ilastik.tile_sizes((universal,) * 2) == (512, 512)
    assert ilastik.tile_sizes((universal,) * 3) == (64, 64, 64)


@pytest.mark.parametrize(
    ("ndim", "channels", "largest"), [(2, 16, 1279), (3, 16, 117), (3, 2, 235)]
)
def test_a_tile_must_fit_a_message_of_100_mib(ndim: int, channels: int, largest: int) -> None:
    def place(tile: int) -> Placement | Refusal:
        axes = (DeclaredAxis(tile, 0),) * ndim
        return ilastik.place(axes, (2000,) * ndim, channels=channels)

    refusal = place(largest + 1)
    assert isinstance(place(largest), Placement)
    assert isinstance(refusal, Refusal)
    assert refusal.how == "fails"
    assert "MiB" in refusal.reason


def test_a_package_that_the_format_refuses_is_refused() -> None:
    refusal = ilastik.place(both(40, 4, 20), ON_GRID)
    assert isinstance(refusal, Refusal)
    assert refusal.how == "refuses"


@given(kept=st.integers(1, 40), halo=st.integers(0, 12), size=st.integers(1, 60))
def test_padding_is_what_ilastik_does_with_the_part_inside_the_image(
    kept: int, halo: int, size: int
) -> None:
    """It reads what lies inside the image and calls numpy's pad on that part alone."""
    placement = placed((DeclaredAxis(kept + 2 * halo, 0, halo), DeclaredAxis(1, 0)), (size, 1))
    image = noise((size, 1))
    for tile in placement:
        start, stop = tile.read.start[0], tile.read.stop[0]
        inside = image[:, max(start, 0) : min(stop, size)]
        beyond = [(0, 0), (max(0, -start), max(0, stop - size)), (0, 0)]
        ours = read_padded(image, tile.read, placement.padding)
        np.testing.assert_array_equal(ours, np.pad(inside, beyond, mode="reflect"))
