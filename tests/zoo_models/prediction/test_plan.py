"""Blocks are as large as the memory allows, and no larger."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_models.errors import InputError
from zoo_models.geometry import TileGeometry, ValidUNetAxis
from zoo_models.prediction.plan import (
    LARGEST_BLOCK,
    BlockCost,
    blocks_of,
    chunk_edges,
    needed,
    parse_bytes,
)

COST = BlockCost(channels=1, dimensions=16, at_once=2)


@pytest.mark.parametrize(
    ("text", "number"),
    [("4GiB", 2**32), ("500MB", 5 * 10**8), ("1.5 g", 15 * 10**8), ("2Ki", 2048), ("77", 77)],
)
def test_amounts_of_memory_as_people_write_them(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "much", "4TiB", "-1G", "0", "0MB", "1e9"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="such as 4GiB"):
        parse_bytes(text)


@given(
    shape=st.one_of(
        st.tuples(*[st.integers(1, 10**5)] * 2), st.tuples(*[st.integers(1, 2000)] * 3)
    ),
)
def test_blocks_are_whole_chunks_from_one_on_to_all_of_the_image(shape: tuple[int, ...]) -> None:
    chunk = (512, 512) if len(shape) == 2 else (64, 64, 64)
    blocks, largest = blocks_of(shape, chunk), LARGEST_BLOCK[len(shape)]
    assert blocks[0] == chunk
    for block in blocks:
        assert all(b % c == 0 for b, c in zip(block, chunk, strict=True))
        assert max(block) <= largest
    enough = (min(largest, -(-n // c) * c) for n, c in zip(shape, chunk, strict=True))
    assert blocks[-1] == tuple(enough)


def test_the_cost_of_a_block_by_hand() -> None:
    """Two blocks at once of 512 x 512 with 7 pixels more on each side, 8 + 64 + 72 bytes each."""
    assert needed((512, 512), (5000, 5000), COST) == 2 * 526 * 526 * 144
    assert needed((512, 512), (300, 200), COST) == 300 * 200 * 144  # one block, no margin beyond


def test_chunks_lie_on_the_grid_of_the_period() -> None:
    axis = ValidUNetAxis(kernel=3, convolutions=2, levels=3, factor=3)
    geometry = TileGeometry.from_network([axis, axis])
    assert geometry.period == (27, 27)
    assert chunk_edges(geometry) == (486, 486)
    assert math.floor(512 / 27) * 27 == 486
