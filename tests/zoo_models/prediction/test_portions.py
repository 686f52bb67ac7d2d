"""Tables are merged in portions: each row once, and together with all that it touches."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging
from zoo_models.prediction.passes import partition
from zoo_models.prediction.portions import neighbours, portions
from zoo_models.prediction.tables import Table, beyond, shell_of


def tables_of(mask: np.ndarray, blocks: list[Box]) -> dict[Box, Table]:
    """One row for each connected part of the mask in each block."""
    tables = {}
    for block in blocks:
        part, number = ndimage.label(mask[block.slices])
        shell = shell_of(block, mask.shape)
        row = np.zeros(mask.shape, np.int64)
        row[block.slices] = part
        row = row.ravel()[shell]
        none = np.zeros(0, np.int64)
        tables[block] = Table(
            size=np.bincount(part.ravel(), minlength=number + 1)[1:],
            first=none,
            second=none,
            contact=none,
            shell=shell[row > 0],
            shell_row=row[row > 0] - 1,
        )
    return tables


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(st.tuples(*[st.integers(1, 20)] * 2), st.tuples(*[st.integers(1, 8)] * 3)),
    size=st.integers(1, 9),
    most=st.integers(1, 30),
)
def test_what_is_connected_over_any_number_of_blocks_is_in_one_portion(
    seed: int, shape: tuple[int, ...], size: int, most: int
) -> None:
    """The sizes of the rows of a connected part add up to it: SciPy says which are connected."""
    draw = np.random.default_rng(seed)
    mask = draw.random(shape) < draw.choice([0.2, 0.5, 0.8])
    blocks = partition(shape, [size + int(draw.integers(0, 3)) for _ in shape])
    blocks = [blocks[i] for i in draw.permutation(len(blocks))]
    tables = tables_of(mask, blocks)
    whole, number = ndimage.label(mask)
    seen, pixels = [], []
    for shares in portions(BasinMerging(), blocks, tables.__getitem__, shape, most=most):
        parts = set()
        for share in shares:
            part, _ = ndimage.label(mask[share.block.slices])
            for row in np.flatnonzero(share.rows):
                parts |= set(whole[share.block.slices][part == row + 1].tolist())
                seen.append((share.block, int(row)))
        rows = sum(len(share.table) for share in shares)
        assert rows <= most or len(parts) == 1
        assert sum(int(s.table.size.sum()) for s in shares) == np.isin(whole, list(parts)).sum()
        pixels.append(len(parts))
    assert sum(pixels) == number
    assert len(seen) == len(set(seen)) == sum(map(len, tables.values()))


def test_each_table_is_read_once_to_find_what_touches_and_again_for_its_portions() -> None:
    """Six rows are two lines across three blocks each."""
    mask = np.zeros((100, 12), bool)
    mask[1::4] = True
    blocks = partition(mask.shape, (4, 4))
    tables, reads = tables_of(mask, blocks), []

    def read(block: Box) -> Table:
        reads.append(block)
        return tables[block]

    found = list(portions(BasinMerging(), blocks, read, mask.shape, most=6))
    assert reads[: len(blocks)] == blocks
    assert [len({share.block for share in shares}) for shares in found] == [6] * 12 + [3]


def test_rows_that_lead_out_are_those_at_borders_within_the_image() -> None:
    shape, block = (4, 6), Box((0, 2), (2, 4))
    shell = shell_of(block, shape)
    assert shell.tolist() == [2, 3, 8, 9]
    at, pixel = beyond(shell, block, shape)
    assert sorted(zip(shell[at].tolist(), pixel.tolist(), strict=True)) == [
        (2, 1),
        (3, 4),
        (8, 7),
        (8, 14),
        (9, 10),
        (9, 15),
    ]


@pytest.mark.parametrize("missing", [False, True])
def test_neighbours_are_the_cells_around_corners_too(missing: bool) -> None:
    blocks = partition((3, 3), (1, 1))
    if missing:
        del blocks[4]
    found = [sorted(set(row.tolist()) - {-1}) for row in neighbours(blocks)]
    if missing:
        assert found[0] == [1, 3]
        assert found[1] == [0, 2, 3, 4]
    else:
        assert found[0] == [1, 3, 4]
        assert found[4] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_only_takes_rows_with_all_that_is_theirs() -> None:
    table = Table(
        size=np.array([5, 6, 7]),
        first=np.array([0, 1]),
        second=np.array([1, 2]),
        contact=np.array([3, 4]),
        shell=np.array([10, 20, 30]),
        shell_row=np.array([2, 0, 1]),
    )
    part = table.only(np.array([False, True, True]))
    assert part.size.tolist() == [6, 7]
    assert part.contact.tolist() == [4]
    assert (part.first.tolist(), part.second.tolist()) == ([0], [1])
    assert (part.shell.tolist(), part.shell_row.tolist()) == ([10, 30], [1, 0])


def test_memory_does_not_grow_with_the_tables_where_objects_lie_apart() -> None:
    """Sixteen times as many blocks, each with ten objects of a hundred rows; two cross borders."""
    chained = np.flatnonzero(np.arange(999) % 100 != 99)

    def peak(number: int) -> int:
        def read(block: Box) -> Table:
            return Table(
                size=np.full(1000, 3),
                first=chained,
                second=chained + 1,
                contact=np.ones_like(chained),
                shell=np.array([block.start[1], block.stop[1] - 1]),
                shell_row=np.array([0, 999]),
            )

        shape, rows = (16, 16 * number), 0
        blocks = partition(shape, (16, 16))
        tracemalloc.start()
        for shares in portions(BasinMerging(), blocks, read, shape, most=4000):
            rows += sum(len(share.table) for share in shares)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == 1000 * number
        return found

    bytes_per_block = 8 * (1000 + 2 * len(chained))
    assert peak(320) - peak(20) < 0.1 * 300 * bytes_per_block
