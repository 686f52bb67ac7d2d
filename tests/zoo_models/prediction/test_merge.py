"""Labels of an image cut into blocks are those of the whole image, to the last pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo_models.postprocessing.conftest import BACKGROUND, PLACES, Labels, embed, scene
from zoo_models.compiled.basin_merging import BasinMerging as Compiled
from zoo_models.errors import GeometryError, InputError
from zoo_models.geometry import Box
from zoo_models.postprocessing.basin_merging import BasinMerging
from zoo_models.prediction.fragments import MARGIN
from zoo_models.prediction.merge import cluster_blocks, expect_partition, grown, partition

KNOWN: dict[str, Any] = {"background": BACKGROUND, "radius": 3.0}


def in_blocks(
    clusterer: BasinMerging,
    embeddings: np.ndarray,
    blocks: list[Box],
    foreground: np.ndarray | None = None,
) -> tuple[Labels, int]:
    labels = np.full(embeddings.shape[1:], -1, np.int32)
    mask = foreground

    def write(box: Box, found: Labels) -> None:
        labels[box.slices] = found

    number = cluster_blocks(
        clusterer,
        lambda box: np.ascontiguousarray(embeddings[:, *box.slices]),
        blocks,
        write,
        foreground=None if mask is None else lambda box: mask[box.slices],
    )
    return labels, number


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
)
def test_blocks_of_any_size_in_any_order_give_the_labels_of_the_whole(
    seed: int, shape: tuple[int, ...], size: int, noise: float, compiled: bool
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
    found, number = in_blocks(clusterer, embeddings, blocks)
    np.testing.assert_array_equal(found, expected)
    assert number == expected.max()


def test_an_object_larger_than_many_blocks_is_one() -> None:
    labels, number = in_blocks(
        BasinMerging(**KNOWN), embed(np.ones((50, 60), np.int32)), partition((50, 60), (7, 11))
    )
    assert (labels == 1).all()
    assert number == 1


def test_a_mask_is_read_as_the_embeddings_are() -> None:
    draw = np.random.default_rng(4)
    embeddings = noisy_cells(draw, (40, 50), 0.5)
    mask = np.kron(draw.random((4, 5)) < 0.6, np.ones((10, 10), bool))
    clusterer = BasinMerging(**KNOWN, min_size=1)
    found, _ = in_blocks(clusterer, embeddings, partition((40, 50), (16, 16)), mask)
    np.testing.assert_array_equal(found, clusterer(embeddings, mask))
    assert found.max() > 3


@pytest.mark.parametrize(("margin", "same"), [(1, False), (MARGIN, True)])
def test_blocks_must_read_beyond_their_border(
    margin: int, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_models.prediction.merge.MARGIN", margin)
    draw, clusterer = np.random.default_rng(0), BasinMerging(**KNOWN, min_size=1)
    found = []
    for _ in range(20):
        embeddings = noisy_cells(draw, (30, 30), 1.5)
        labels, _ = in_blocks(clusterer, embeddings, partition((30, 30), (10, 10)))
        found.append((labels == clusterer(embeddings)).all())
    assert all(found) == same


def test_an_image_without_objects_has_none() -> None:
    labels, number = in_blocks(
        BasinMerging(**KNOWN), embed(np.zeros((20, 30), np.int32)), partition((20, 30), (8, 8))
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
    with pytest.raises(GeometryError, match="No blocks"):
        expect_partition([])


def test_an_unknown_background_is_refused() -> None:
    with pytest.raises(InputError, match="give `background`"):
        in_blocks(BasinMerging(), embed(scene()), partition((24, 40), (8, 8)))


def test_embeddings_that_differ_a_little_between_reads_still_give_every_object_once() -> None:
    """As of a network whose sums are rounded otherwise in another tile."""
    draw = np.random.default_rng(1)
    categories = np.ones((30, 30), np.int32)  # flat: whatever is added decides all walks
    labels = np.zeros((30, 30), np.int32)

    def read(box: Box) -> np.ndarray:
        clean = embed(categories)[:, *box.slices]
        return np.asarray(clean + draw.normal(0, 1e-3, clean.shape), np.float32)

    number = cluster_blocks(
        BasinMerging(**KNOWN),
        read,
        partition((30, 30), (3, 3)),
        lambda box, found: labels.__setitem__(box.slices, found),
    )
    assert number == 1
    assert (labels == 1).all()
