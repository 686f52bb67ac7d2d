"""Labels of an image cut into blocks are those of the whole image, to the last pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo_models.postprocessing.conftest import BACKGROUND, PLACES, Labels, embed
from zoo_models.compiled.basin_merging import BasinMerging as Compiled
from zoo_models.errors import GeometryError
from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging
from zoo_models.prediction.enclosed import BlockFragments, finish_enclosed
from zoo_models.prediction.fragments import MARGIN, fragments
from zoo_models.prediction.passes import (
    Arrays,
    Passes,
    Scratch,
    Work,
    cluster_blocks,
    expect_partition,
    grown,
    partition,
    written,
)

KNOWN: dict[str, Any] = {"background": BACKGROUND, "radius": 3.0}


def in_blocks(
    clusterer: BasinMerging,
    read: Callable[[Box], np.ndarray],
    blocks: list[Box],
    foreground: np.ndarray | None = None,
    scratch: Scratch | None = None,
    most: int = 2**16,
) -> tuple[Labels, int]:
    shape = expect_partition(blocks)
    labels = np.full(shape, -1, np.int32)

    def first(block: Box) -> BlockFragments:
        box = grown(block, shape)
        mask = None if foreground is None else foreground[box.slices]
        found = fragments(clusterer, read(box), box, block, shape, foreground=mask)
        return finish_enclosed(clusterer, found, block, shape)

    def write(block: Box, found: Labels) -> Arrays:
        labels[block.slices] = found
        return {"labels": found}

    kept = {} if scratch is None else scratch
    passes = Passes(clusterer, shape, first, write, kept, most=most)
    return labels, cluster_blocks(passes, blocks, in_turn)


def reader(embeddings: np.ndarray) -> Callable[[Box], np.ndarray]:
    return lambda box: np.ascontiguousarray(embeddings[:, *box.slices])


def noisy_cells(draw: np.random.Generator, shape: tuple[int, ...], noise: float) -> np.ndarray:
    """Cells of 6 pixels' edge, blurred by noise of which some is the same over several pixels."""
    cells = draw.integers(0, len(PLACES), [-(-n // 6) for n in shape])
    categories = np.kron(cells, np.ones((6,) * len(shape), np.int64))[tuple(map(slice, shape))]
    clean = embed(categories)
    coarse = draw.normal(0, noise, (3, *(-(-n // 3) for n in shape)))
    smooth = np.kron(coarse, np.ones((1,) + (3,) * len(shape)))[:, *map(slice, shape)]
    fine = draw.normal(0, noise / 2, clean.shape)
    return np.asarray(clean + smooth + fine, np.float32)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 14)] * 3)),
    size=st.integers(1, 25),
    noise=st.sampled_from([0, 0.3, 1.5, 4.0]),
    compiled=st.booleans(),
    most=st.sampled_from([1, 12, 2**16]),
)
def test_blocks_of_any_size_in_any_order_give_the_labels_of_the_whole(
    seed: int, shape: tuple[int, ...], size: int, noise: float, compiled: bool, most: int
) -> None:
    draw = np.random.default_rng(seed)
    embeddings = noisy_cells(draw, shape, noise)
    blocks = partition(shape, [max(1, size + int(draw.integers(-3, 4))) for _ in shape])
    blocks = [blocks[i] for i in draw.permutation(len(blocks))]
    chosen: dict[str, Any] = {
        **KNOWN,
        "solid": draw.choice([0.0, 0.9, 1.1]),
        "merge": draw.choice([1.0, 3.2, 8.5]),
        "min_size": int(draw.integers(1, 20)),
    }
    clusterer = (Compiled if compiled else BasinMerging)(**chosen)
    expected = BasinMerging(**chosen)(embeddings)
    found, number = in_blocks(clusterer, reader(embeddings), blocks, most=most)
    np.testing.assert_array_equal(found, expected)
    assert number == expected.max()


def test_an_object_larger_than_many_blocks_is_one() -> None:
    labels, number = in_blocks(
        BasinMerging(**KNOWN),
        reader(embed(np.ones((50, 60), np.int32))),
        partition((50, 60), (7, 11)),
    )
    assert (labels == 1).all()
    assert number == 1


def test_a_mask_is_read_as_the_embeddings_are() -> None:
    draw = np.random.default_rng(4)
    embeddings = noisy_cells(draw, (40, 50), 0.5)
    mask = np.kron(draw.random((4, 5)) < 0.6, np.ones((10, 10), bool))
    clusterer = BasinMerging(**KNOWN, min_size=1)
    found, _ = in_blocks(clusterer, reader(embeddings), partition((40, 50), (16, 16)), mask)
    np.testing.assert_array_equal(found, clusterer(embeddings, mask))
    assert found.max() > 3


@pytest.mark.parametrize(("margin", "same"), [(1, False), (MARGIN, True)])
def test_blocks_must_read_beyond_their_border(
    margin: int, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_models.prediction.passes.MARGIN", margin)
    draw, clusterer = np.random.default_rng(0), BasinMerging(**KNOWN, min_size=1)
    found = []
    for _ in range(20):
        embeddings = noisy_cells(draw, (30, 30), 1.5)
        labels, _ = in_blocks(clusterer, reader(embeddings), partition((30, 30), (10, 10)))
        found.append((labels == clusterer(embeddings)).all())
    assert all(found) == same


def test_an_image_without_objects_has_none() -> None:
    labels, number = in_blocks(
        BasinMerging(**KNOWN),
        reader(embed(np.zeros((20, 30), np.int32))),
        partition((20, 30), (8, 8)),
    )
    assert not labels.any()
    assert number == 0


def test_blocks_partition_the_image_and_anything_else_is_refused() -> None:
    blocks = partition((20, 30), (8, 16))
    assert expect_partition(blocks) == (20, 30)
    assert grown(Box((8, 0), (16, 16)), (20, 30)) == Box((1, 0), (20, 16 + MARGIN))
    with pytest.raises(GeometryError, match=r"5 blocks cover .* expected each pixel in one block"):
        expect_partition(blocks[:2] + blocks[3:])
    with pytest.raises(GeometryError, match="each pixel in one block"):
        expect_partition([*blocks, blocks[0]])
    bricks = [Box((0, 0), (1, 2)), Box((0, 2), (1, 4)), Box((1, 0), (2, 1)), Box((1, 1), (2, 4))]
    with pytest.raises(GeometryError, match="in rows and columns"):
        expect_partition(bricks)
    with pytest.raises(GeometryError, match="No blocks"):
        expect_partition([])


def test_embeddings_that_differ_a_little_between_reads_still_give_every_object_once() -> None:
    """As of a network whose sums are rounded otherwise in another tile."""
    draw = np.random.default_rng(1)
    categories = np.ones((30, 30), np.int32)  # flat: whatever is added decides all walks
    labels = np.zeros((30, 30), np.int32)

    def read(box: Box) -> np.ndarray:
        clean = embed(categories)[:, *box.slices]
        return np.asarray(clean + draw.normal(0, 1e-3, clean.shape), np.float32)

    labels, number = in_blocks(BasinMerging(**KNOWN), read, partition((30, 30), (3, 3)))
    assert number == 1
    assert (labels == 1).all()


def test_the_tables_hold_what_reaches_beyond_a_block_and_nothing_else() -> None:
    """Two cells inside the first block, one across the seam of both, one away from it."""
    categories = np.zeros((20, 40), np.int32)
    categories[2:8, 2:8] = categories[12:18, 2:8] = 1
    categories[5:15, 15:25] = 2
    categories[2:8, 30:36] = 1
    scratch: Scratch = {}
    labels, number = in_blocks(
        BasinMerging(**KNOWN),
        reader(embed(categories)),
        partition((20, 40), (20, 20)),
        None,
        scratch,
    )
    assert number == 4
    np.testing.assert_array_equal(labels > 0, categories > 0)
    for start, finished in (("0_0", 2), ("0_20", 1)):
        assert len(scratch[f"numbers/{start}"]["finished"]) == finished + 1
        assert scratch[f"fragments/{start}"]["size"].sum() == 50


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(0, 40), max_size=4))
def test_a_run_that_was_cut_goes_on_to_the_same_end(seed: int, steps: list[int]) -> None:
    """Cut after any number of things kept, several times; no block is embedded twice."""
    draw = np.random.default_rng(seed)
    embeddings = noisy_cells(draw, (25, 30), 0.5)
    blocks = partition((25, 30), (9, 11))
    clusterer, kept, reads = BasinMerging(**KNOWN), Cut(), []

    def counted(box: Box) -> np.ndarray:
        reads.append(box)
        return np.ascontiguousarray(embeddings[:, *box.slices])

    for number in [*steps, 1000]:
        kept.left = number
        with suppress(KeyboardInterrupt):
            in_blocks(clusterer, counted, blocks, None, kept)
    found = np.zeros((25, 30), np.int32)
    for block in blocks:
        found[block.slices] = written(kept, block)["labels"]
    np.testing.assert_array_equal(found, clusterer(embeddings))
    assert len(reads) <= len(blocks) + len(steps)


class Cut(dict[str, Arrays]):
    """Scratch of a run that is interrupted when it wants to keep one thing more."""

    left = 0

    def __setitem__(self, key: str, value: Arrays) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().__setitem__(key, value)


def in_turn(step: str, work: Work, blocks: Sequence[Box]) -> None:
    for block in blocks:
        work(step, block)
