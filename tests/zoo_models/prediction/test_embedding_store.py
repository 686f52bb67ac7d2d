"""Embeddings written block by block come back whole, through the reader of `spoco-zoo cluster`."""

from __future__ import annotations

import json
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_io
import pytest
import yaozarrs
import zarr
from ome_zarr_io import OMEZarrValidator

from zoo_models.errors import GeometryError, ImageError, InputError, OutputExistsError
from zoo_models.geometry import Box
from zoo_models.prediction.clustering import EmbeddingSpace
from zoo_models.prediction.embedding_store import EmbeddingStore
from zoo_models.prediction.stored_embeddings import read_embeddings

DIM, SHAPE, CHUNK = 3, (40, 52), (16, 16)


def places(*shape: int) -> np.ndarray:
    """Every value is its own place in the array, and exact in float16, too."""
    return (np.arange(np.prod(shape), dtype=np.float32) % 2048 - 1024).reshape(shape) / 8


def blocks(shape: tuple[int, ...], block: int) -> list[Box]:
    starts = product(*(range(0, n, block) for n in shape))
    return [Box(s, tuple(min(a + block, n) for a, n in zip(s, shape, strict=True))) for s in starts]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("axes", "shape", "size"),
    [("yx", SHAPE, (0.5, 0.25)), ("zyx", (20, 18, 33), (1.0, 0.5, 0.25)), ("yx", SHAPE, None)],
)
def test_blocks_are_read_back_as_one_image(
    axes: str, shape: tuple[int, ...], size: Any, dtype: Any, tmp_path: Path
) -> None:
    embeddings = places(DIM, *shape)
    store = EmbeddingStore.create(
        tmp_path / "e.zarr",
        DIM,
        shape,
        axes,
        chunk=(16,) * len(axes),
        dtype=dtype,
        voxel_size_um=size,
    )
    for box in blocks(shape, 32):
        store.write(box, embeddings[(slice(None), *box.slices)])
    for space in (EmbeddingSpace(), EmbeddingSpace(dimensions=DIM, axes=axes)):
        found = read_embeddings(tmp_path / "e.zarr", space)
        assert found.axes == axes
        np.testing.assert_array_equal(found.data, embeddings)
    assert store.array.dtype == dtype


@pytest.mark.parametrize(
    ("axes", "shape", "named", "order"),
    [
        ("zyx", (3, *SHAPE), "czyx", (1, 0, 2, 3)),
        ("tyx", (3, *SHAPE), "tcyx", (0, 1, 2, 3)),
        ("tzyx", (2, 3, *SHAPE), "tczyx", (0, 2, 1, 3, 4)),
    ],
)
def test_planes_of_a_stack_go_where_the_specification_has_them(
    axes: str, shape: tuple[int, ...], named: str, order: tuple[int, ...], tmp_path: Path
) -> None:
    store = EmbeddingStore.create(tmp_path / "e.zarr", DIM, shape, axes, chunk=CHUNK)
    embeddings = places(*shape[:-2], DIM, *SHAPE)  # the planes as a model gives them
    for at in product(*map(range, shape[:-2])):
        for box in blocks(SHAPE, 32):
            place: Any = (*at, slice(None), *box.slices)
            store.write(box, embeddings[place], at)
    np.testing.assert_array_equal(np.asarray(store.array[...]), embeddings.transpose(order))
    assert json.loads((store.path / "0/zarr.json").read_text())["dimension_names"] == list(named)
    assert (store.shape, store.chunk) == (shape, (1,) * (len(shape) - 2) + CHUNK)


@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "tzyx"])
def test_validators_find_no_fault(axes: str, tmp_path: Path) -> None:
    size = (1.0, 0.5, 0.25)[-len(axes.replace("t", "")) :]
    shape = (2, 3, *SHAPE)[-len(axes) :]
    EmbeddingStore.create(tmp_path / "e.zarr", DIM, shape, axes, chunk=CHUNK, voxel_size_um=size)
    yaozarrs.validate_zarr_store(tmp_path / "e.zarr")
    report = ome_zarr_io.validate(tmp_path / "e.zarr")
    assert (report.kind, report.errors, len(report.levels)) == ("image", [], 1)
    document = json.loads((tmp_path / "e.zarr/zarr.json").read_text())
    OMEZarrValidator().validate_metadata(document["attributes"], "image")
    scales = document["attributes"]["ome"]["multiscales"][0]
    units = {a["name"]: a.get("unit") for a in scales["axes"]}
    assert [units[a] for a in axes if a != "t"] == ["micrometer"] * len(size)
    scale = scales["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-len(size) :] == list(size)


def test_a_block_done_again_and_a_store_created_again_leave_the_same_bytes(tmp_path: Path) -> None:
    def create() -> EmbeddingStore:
        return EmbeddingStore.create(tmp_path / "e.zarr", DIM, SHAPE, "yx", chunk=CHUNK)

    store, box = create(), Box((0, 16), (32, 52))
    store.write(box, places(DIM, *box.shape))
    first = files(store.path)
    (store.path / "0/c/0/0/7.0123456789abcdef.partial").touch()
    again = pickle.loads(pickle.dumps(create()))
    assert files(store.path) == first
    again.write(box, -places(DIM, *box.shape))
    assert files(store.path) != first
    again.write(box, places(DIM, *box.shape))
    assert files(store.path) == first


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 4},
        {"shape": (40, 53)},
        {"chunk": (16, 32)},
        {"dtype": "float16"},
        {"voxel_size_um": (0.5, 0.5)},
        {"axes": "tyx", "shape": (1, 40, 52)},
    ],
)
def test_other_embeddings_are_never_written_over(change: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"dim": DIM, "shape": SHAPE, "axes": "yx", "chunk": CHUNK}
    EmbeddingStore.create(tmp_path / "e.zarr", **options)
    first = files(tmp_path)
    with pytest.raises(OutputExistsError, match=r"e\.zarr.*is there.*--overwrite"):
        EmbeddingStore.create(tmp_path / "e.zarr", **options | change)
    assert files(tmp_path) == first


@pytest.mark.parametrize("value", [np.inf, np.nan, 70_000.0])
def test_values_that_cannot_be_stored_are_refused(value: float, tmp_path: Path) -> None:
    store = EmbeddingStore.create(
        tmp_path / "e.zarr", DIM, SHAPE, "yx", chunk=CHUNK, dtype="float16"
    )
    embeddings = np.zeros((DIM, 16, 16), np.float32)
    embeddings[1, 2, 3] = value
    with pytest.raises(ImageError, match=r"stored as float16.*float32"):
        store.write(Box((0, 0), (16, 16)), embeddings)
    assert not np.asarray(store.array[...]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = EmbeddingStore.create(tmp_path / "e.zarr", DIM, SHAPE, "yx", chunk=CHUNK)
    with pytest.raises(GeometryError, match="cuts chunks"):
        store.write(Box((0, 0), (16, 20)), np.zeros((DIM, 16, 20)))
    with pytest.raises(GeometryError, match=r"expected \(3, 16, 16\)"):
        store.write(Box((0, 0), (16, 16)), np.zeros((DIM + 1, 16, 16)))
    for change in ({"dim": 0}, {"dtype": "float64"}, {"axes": "cyx"}):
        options: dict[str, Any] = {"dim": DIM, "shape": SHAPE, "axes": "yx", "chunk": CHUNK}
        with pytest.raises(InputError):
            EmbeddingStore.create(tmp_path / "other.zarr", **options | change)
    assert not (tmp_path / "other.zarr").exists()
    assert isinstance(zarr.open(tmp_path / "e.zarr", mode="r"), zarr.Group)
