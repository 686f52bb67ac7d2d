"""Embeddings come out of every kind of file alike, and axes that could be read two ways do not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_models.errors import ImageError
from zoo_models.prediction.clustering import EmbeddingSpace
from zoo_models.prediction.stored_embeddings import read_embeddings

UNKNOWN = EmbeddingSpace()
FLAT = EmbeddingSpace(dimensions=3, axes="yx")
DEEP = EmbeddingSpace(dimensions=3, axes="zyx")


def position(*shape: int) -> np.ndarray:
    """Every value is its own place in the array."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def npy(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "e.npy", array)
    return str(folder / "e.npy")


def plain_tiff(folder: Path, array: np.ndarray) -> str:
    tifffile.imwrite(folder / "e.tif", array, photometric="minisblack")
    return str(folder / "e.tif")


def hdf5(folder: Path, array: np.ndarray) -> str:
    with h5py.File(folder / "e.h5", "w") as file:
        file["inside/embeddings"] = array
    return f"{folder / 'e.h5'}:/inside/embeddings"


def zarr_array(folder: Path, array: np.ndarray) -> str:
    zarr.create_array(folder / "e.zarr", data=array)
    return str(folder / "e.zarr")


def ome_zarr(folder: Path, array: np.ndarray, axes: str) -> str:
    group = zarr.open_group(folder / "e.zarr", mode="w")
    group.create_array("0", data=array)
    scale = {"axes": [{"name": a} for a in axes], "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"multiscales": [scale]}
    return str(folder / "e.zarr")


WRITERS = (npy, plain_tiff, hdf5, zarr_array)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("space", [UNKNOWN, FLAT], ids=["unknown", "known"])
@pytest.mark.parametrize("shape", [(3, 8, 7), (1, 3, 8, 7)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_2d_embeddings_are_read_from_every_file(
    write: Callable[..., str],
    space: EmbeddingSpace,
    shape: tuple[int, ...],
    dtype: str,
    tmp_path: Path,
) -> None:
    array = position(*shape)
    found = read_embeddings(write(tmp_path, array.astype(dtype)), space)
    assert (found.axes, found.data.dtype.name) == ("yx", "float32")
    np.testing.assert_array_equal(found.data, array.reshape(3, 8, 7))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("space", [UNKNOWN, DEEP], ids=["unknown", "known"])
@pytest.mark.parametrize("shape", [(3, 4, 8, 7), (1, 3, 4, 8, 7)])
def test_3d_embeddings_are_read_from_every_file(
    write: Callable[..., str], space: EmbeddingSpace, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = position(*shape)
    found = read_embeddings(write(tmp_path, array), space)
    assert found.axes == "zyx"
    np.testing.assert_array_equal(found.data, array.reshape(3, 4, 8, 7))


files = count()


@settings(max_examples=25)
@given(axes=st.permutations("czyx").map("".join), sizes=st.permutations([2, 3, 5, 6]))
def test_axes_with_names_may_have_any_order(
    axes: str, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = dict(zip("czyx", sizes, strict=True))
    array = position(*sizes)
    stored = array.transpose(["czyx".index(a) for a in axes])
    folder = tmp_path_factory.getbasetemp() / f"named{next(files)}"
    folder.mkdir()
    found = read_embeddings(ome_zarr(folder, stored, axes), UNKNOWN)
    assert found.axes == "zyx"
    assert found.data.shape == tuple(size[a] for a in "czyx")
    np.testing.assert_array_equal(found.data, array)


@pytest.mark.parametrize("axes", ["CYX", "YXS", "TCYX", "ZCYX"])
def test_an_ome_tiff_is_read_by_its_axes_and_keeps_its_voxel_size(
    axes: str, tmp_path: Path
) -> None:
    array = position(3, 8, 7)
    sizes = {"C": 3, "S": 3, "Y": 8, "X": 7}
    moved = array.transpose(["CYX".index(a.replace("S", "C")) for a in axes if a in "CSYX"])
    stored = moved.reshape([sizes.get(a, 1) for a in axes])
    metadata = {"axes": axes, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
    kind = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(tmp_path / "e.ome.tif", stored, photometric=kind, metadata=metadata, ome=True)
    found = read_embeddings(tmp_path / "e.ome.tif", UNKNOWN)
    assert (found.axes, found.voxel_size_um) == ("yx", (0.5, 0.25))
    np.testing.assert_array_equal(found.data, array)


def test_with_a_teacher_there_are_twice_as_many_channels(tmp_path: Path) -> None:
    assert read_embeddings(npy(tmp_path, position(6, 8, 7)), FLAT).data.shape == (6, 8, 7)


@pytest.mark.parametrize(
    ("shape", "space", "words"),
    [
        ((8, 7), UNKNOWN, ("(8, 7)", "expected the axes (D, [Z,] Y, X)")),
        ((2, 3, 4, 8, 7), UNKNOWN, ("(2, 3, 4, 8, 7)", "(1, D, [Z,] Y, X)")),
        ((40, 50, 3), UNKNOWN, ("(40, 50, 3)", "first or last", "--package")),
        ((1, 40, 50, 3), UNKNOWN, ("(1, 40, 50, 3)", "first or last")),
        ((40, 50, 60, 3), UNKNOWN, ("(40, 50, 60, 3)", "first or last")),
        ((3, 4, 8, 7), FLAT, ("(3, 4, 8, 7)", "(D, Y, X)", "of the model")),
        ((3, 8, 7), DEEP, ("(3, 8, 7)", "(D, Z, Y, X)", "of the model")),
        ((1, 3, 8, 7), DEEP, ("(1, 3, 8, 7)", "1 embedding dimensions", "expected 3")),
        ((40, 50, 3), FLAT, ("(40, 50, 3)", "40 embedding dimensions", "expected 3")),
        ((4, 8, 7), FLAT, ("(4, 8, 7)", "4 embedding dimensions", "expected 3")),
        ((3, 0, 7), UNKNOWN, ("(3, 0, 7)", "at least one pixel")),
    ],
)
def test_axes_that_are_ambiguous_or_not_the_models_are_refused(
    shape: tuple[int, ...], space: EmbeddingSpace, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(npy(tmp_path, position(*shape)), space, *words)


@pytest.mark.parametrize("axes", ["tcyx", "zyx", "ccyx"])
def test_names_that_are_not_those_of_embeddings_are_refused(axes: str, tmp_path: Path) -> None:
    source = ome_zarr(tmp_path, position(*[2, 3, 8, 7][-len(axes) :]), axes)
    assert_refused(source, UNKNOWN, f"the axes {axes}", "expected the axes (D,", "named c")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "complex64"])
def test_other_things_than_floats_are_refused(dtype: str, tmp_path: Path) -> None:
    assert_refused(npy(tmp_path, np.ones((3, 8, 7), dtype)), UNKNOWN, dtype, "expected")


def test_a_dataset_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    hdf5(tmp_path, position(3, 8, 7))
    for source in ("e.h5", "e.h5:/other"):
        assert_refused(tmp_path / source, UNKNOWN, "is no array", "inside/embeddings")
    assert_refused(tmp_path / "no.h5:/x", UNKNOWN, "no.h5", "does not exist")
    assert_refused(tmp_path / "no.zarr", UNKNOWN, "no.zarr", "does not exist")
    assert_refused(tmp_path / "no.npy", UNKNOWN, "no.npy", "no such file")


def assert_refused(source: Any, space: EmbeddingSpace, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_embeddings(source, space)
    for word in (*words, Path(str(source)).name.split(":")[0]):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
