"""Labels written block by block are a valid OME-Zarr image, whatever happened on the way."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_io
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_io import OMEZarrValidator

from zoo_models.errors import GeometryError, ImageError, InputError, OutputExistsError
from zoo_models.geometry import Box
from zoo_models.prediction.label_store import LabelStore
from zoo_models.prediction.multiscale import pyramid
from zoo_models.prediction.stored_arrays import read_stored

SHAPE, CHUNK = (50, 70), (16, 16)


def places(shape: Sequence[int]) -> np.ndarray:
    """Every label is its own place in the image, so nothing can be swapped unseen."""
    return np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)


def blocks(shape: Sequence[int], block: Sequence[int]) -> list[Box]:
    starts = product(*(range(0, n, b) for n, b in zip(shape, block, strict=True)))
    return [
        Box(s, tuple(min(a + b, n) for a, b, n in zip(s, block, shape, strict=True)))
        for s in starts
    ]


def filled(path: Path, shape: Sequence[int] = SHAPE, **options: Any) -> LabelStore:
    options = {"chunk": CHUNK, "axes": "yx"} | options
    store = LabelStore.create(path, shape, options.pop("axes"), **options)
    labels = places(shape)
    for box in blocks(shape, [2 * c for c in store.chunk]):
        store.write(box, labels[box.slices])
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


IMAGES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...] | None]] = {
    "yx": ((50, 70), (16, 16), (0.5, 0.25)),
    "zyx": ((9, 40, 40), (4, 16, 16), (1.0, 0.25, 0.25)),
    "tyx": ((3, 40, 40), (16, 16), None),
    "tzyx": ((2, 9, 40, 40), (16, 16), (1.0, 0.25, 0.25)),
}


def faults(path: Path) -> list[str]:
    """What yaozarrs, ome-zarr-io and the specification's own schemas find wrong with a store."""
    found = [str(issue) for issue in ome_zarr_io.validate(path).errors]
    try:
        yaozarrs.validate_zarr_store(path)
    except (ValueError, Warning) as error:  # what SHOULD be is a warning, here an error
        found.append(str(error))
    for place in ("", "labels/instances"):
        attributes = json.loads((path / place / "zarr.json").read_text())["attributes"]
        found += OMEZarrValidator().get_validation_errors(attributes, "strict_image")
    return found


@pytest.mark.parametrize("axes", IMAGES)
def test_validators_find_no_fault_before_and_after_the_pyramid(axes: str, tmp_path: Path) -> None:
    shape, chunk, size = IMAGES[axes]
    path = tmp_path / "cells.zarr"
    store = LabelStore.create(path, shape, axes, chunk=chunk, voxel_size_um=size)
    assert faults(path) == []
    labels = ome_zarr_io.validate(path).labels
    assert [(label.name, label.dtype) for label in labels] == [("instances", "uint32")]
    store.build_pyramid()
    assert faults(path) == []


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("", '"scale"', '"stretch"'),
        ("labels/instances", '"scale"', '"stretch"'),
        ("labels/instances", '"image-label"', '"image"'),
        ("labels/instances/0", '"uint32"', '"float32"'),
    ],
)
def test_validators_find_what_is_broken(place: str, old: str, new: str, tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "cells.zarr", SHAPE, "yx", chunk=CHUNK)
    document = tmp_path / "cells.zarr" / place / "zarr.json"
    assert old in document.read_text()
    document.write_text(document.read_text().replace(old, new))
    assert faults(tmp_path / "cells.zarr")


def test_metadata_tell_axes_units_and_the_size_of_a_pixel_in_every_level(tmp_path: Path) -> None:
    store = LabelStore.create(
        tmp_path / "c.zarr", (2, 40, 40), "zyx", chunk=(2, 16, 16), voxel_size_um=(1.0, 0.5, 0.25)
    )
    ome: Any = zarr.open_group(tmp_path / "c.zarr/labels/instances", mode="r").attrs["ome"]
    scales = ome["multiscales"][0]
    assert scales["axes"] == [
        {"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"
    ]
    found = [d["coordinateTransformations"] for d in scales["datasets"]]
    assert found == [
        [{"type": "scale", "scale": scale}]
        for scale in ([1, 0.5, 0.25], [1, 0.5, 0.5], [1, 1, 1], [2, 2, 2])
    ]
    assert [level.shape for level in store.levels] == [
        (2, 40, 40),
        (2, 40, 20),
        (2, 20, 10),
        (1, 10, 5),
    ]
    for level in range(4):
        document = store.path / f"labels/instances/{level}/zarr.json"
        assert json.loads(document.read_text())["dimension_names"] == ["z", "y", "x"]


def test_a_region_tells_where_it_lies_in_the_whole_image(tmp_path: Path) -> None:
    path = tmp_path / "region.zarr"
    LabelStore.create(
        path,
        (3, 50, 70),
        "tyx",
        chunk=(16, 16),
        voxel_size_um=(0.5, 0.25),
        origin=(100, 40),
    )
    ome: Any = zarr.open_group(path / "labels/instances", mode="r").attrs["ome"]
    levels = [d["coordinateTransformations"] for d in ome["multiscales"][0]["datasets"]]
    assert len(levels) == 4
    assert all(moved == {"type": "translation", "translation": [0, 50, 10]} for _, moved in levels)
    assert faults(path) == []


def test_a_plane_of_a_stack_is_written_by_its_index_and_stays_a_plane(tmp_path: Path) -> None:
    shape = (2, 3, 40, 40)
    store = LabelStore.create(tmp_path / "c.zarr", shape, "tzyx", chunk=CHUNK)
    labels = places(shape)
    for t, z in product(range(2), range(3)):
        for box in blocks(shape[2:], (32, 32)):
            store.write(box, labels[t, z][box.slices], at=(t, z))
    store.build_pyramid()
    np.testing.assert_array_equal(store.read(), labels)
    np.testing.assert_array_equal(store.read(level=1), labels[:, :, ::2, ::2])
    np.testing.assert_array_equal(
        store.read(Box((3, 4), (8, 10)), at=(1, 2)), labels[1, 2, 3:8, 4:10]
    )


numbers = count()


@settings(max_examples=30)
@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=3),
    chunk=st.lists(st.integers(4, 9), min_size=3, max_size=3),
    anisotropy=st.sampled_from([1.0, 1.5, 2.0, 4.0, 100.0]),
)
def test_every_level_holds_the_pixels_at_its_scale(
    shape: list[int], chunk: list[int], anisotropy: float, tmp_path_factory: Any
) -> None:
    axes, size = "zyx"[-len(shape) :], (anisotropy, 1.0, 1.0)[-len(shape) :]
    store = filled(
        tmp_path_factory.getbasetemp() / f"levels{next(numbers)}.zarr",
        shape,
        axes=axes,
        chunk=tuple(chunk[: len(shape)]),
        voxel_size_um=size,
    )
    store.build_pyramid()
    group: Any = zarr.open_group(store.path / "labels/instances", mode="r").attrs["ome"]
    for level, dataset in zip(store.levels, group["multiscales"][0]["datasets"], strict=True):
        scale = dataset["coordinateTransformations"][0]["scale"]
        every = tuple(slice(None, None, round(a / b)) for a, b in zip(scale, size, strict=True))
        np.testing.assert_array_equal(np.asarray(level[...]), places(shape)[every])
    last = store.levels[-1]
    assert all(n <= c for n, c in zip(last.shape, last.chunks, strict=True))
    np.testing.assert_array_equal(store.read(), places(shape))


@pytest.mark.parametrize(
    ("spacing", "factors"),
    [
        ((1.0, 1.0, 1.0), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((4.0, 1.0, 1.0), [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16)]),
        ((1.5, 1.0, 1.0), [(1, 1, 1), (2, 2, 2), (4, 4, 4)]),
        ((None, 1.0, 1.0), [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
    ],
)
def test_z_is_halved_once_y_and_x_are_as_coarse(
    spacing: tuple[float | None, ...], factors: list[tuple[int, ...]]
) -> None:
    levels = pyramid((64, 64, 64), (16, 16, 16), spacing)
    assert [level.factor for level in levels] == factors


def test_a_slide_of_100000_pixels_needs_no_memory_and_one_file_per_chunk(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "c.zarr", (100_000, 100_000), "yx", chunk=(1024, 1024))
    corner = Box((99_328, 99_328), (100_000, 100_000))
    store.write(corner, np.full(corner.shape, 7, np.int32))
    assert math.prod(math.ceil(n / 1024) for n in store.shape) == 9_604
    assert [p for p in files(store.path) if "zarr.json" not in p] == ["labels/instances/0/c/97/97"]
    np.testing.assert_array_equal(np.unique(store.read(corner)), [7])
    assert store.levels[-1].shape == (782, 782)


def test_a_block_done_again_leaves_the_very_same_bytes(tmp_path: Path) -> None:
    store = filled(tmp_path / "c.zarr")
    store.build_pyramid()
    first = files(store.path)
    box = Box((32, 32), (50, 70))
    store.write(box, np.ones(box.shape, np.int32))
    assert files(store.path) != first
    store.write(box, places(SHAPE)[box.slices])
    store.build_pyramid()
    assert files(store.path) == first


def test_background_takes_no_file_even_where_labels_were(tmp_path: Path) -> None:
    store = filled(tmp_path / "c.zarr")
    for box in blocks(SHAPE, CHUNK):
        store.write(box, np.zeros(box.shape, np.int32))
    assert {Path(p).name for p in files(store.path)} == {"zarr.json"}


def test_creating_again_continues_and_sweeps_what_was_half_written(tmp_path: Path) -> None:
    first = files(filled(tmp_path / "c.zarr").path)
    left = tmp_path / "c.zarr/labels/instances/0/c/0/1.0123456789abcdef.partial"
    left.write_bytes(b"half")
    again = LabelStore.create(tmp_path / "c.zarr", SHAPE, "yx", chunk=CHUNK)
    assert files(again.path) == first
    np.testing.assert_array_equal(again.read(), places(SHAPE))


def test_a_store_whose_making_was_interrupted_is_completed(tmp_path: Path) -> None:
    whole = files(LabelStore.create(tmp_path / "a.zarr", SHAPE, "yx", chunk=CHUNK).path)
    for document in whole:
        LabelStore.create(tmp_path / "b.zarr", SHAPE, "yx", chunk=CHUNK)
        if document != "zarr.json":  # the first file of all
            (tmp_path / "b.zarr" / document).unlink()
        LabelStore.create(tmp_path / "b.zarr", SHAPE, "yx", chunk=CHUNK)
        assert files(tmp_path / "b.zarr") == whole


WRITER = """
import sys
import numpy as np
from zoo_models.geometry import Box
from zoo_models.prediction.label_store import LabelStore

def run(path, turns):
    store = LabelStore.create(path, (256, 256), "yx", chunk=(32, 32))
    print("started", flush=True)
    for turn in range(turns):
        for y in range(0, 256, 64):
            for x in range(0, 256, 64):
                labels = np.random.default_rng(y * 256 + x).integers(0, 2**31, (64, 64))
                store.write(Box((y, x), (y + 64, x + 64)), labels)
        store.build_pyramid()
"""


def test_after_kill_9_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    here: dict[str, Any] = {}
    exec(WRITER, here)
    here["run"](tmp_path / "a.zarr", 1)
    for pause in (0.02, 0.15):
        with subprocess.Popen(
            [sys.executable, "-c", f"{WRITER}\nrun(sys.argv[1], 1000)", tmp_path / "b.zarr"],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.kill()
        assert process.returncode == -9
    here["run"](tmp_path / "b.zarr", 1)
    assert files(tmp_path / "b.zarr") == files(tmp_path / "a.zarr")


def test_other_processes_get_the_store_by_pickle_or_by_its_path(tmp_path: Path) -> None:
    store = filled(tmp_path / "c.zarr", name="nuclei")
    one = Box((0, 0), CHUNK)
    for other in (pickle.loads(pickle.dumps(store)), LabelStore.open(store.path, "nuclei")):
        np.testing.assert_array_equal(other.read(), places(SHAPE))
        other.write(one, places(SHAPE)[one.slices])
        assert (other.shape, other.chunk, len(other.levels)) == (SHAPE, CHUNK, 4)
    with pytest.raises(ImageError, match="no label image 'cells'"):
        LabelStore.open(store.path, "cells")
    with pytest.raises(ImageError, match="no label image"):
        LabelStore.open(tmp_path / "nothing.zarr")


def test_the_root_is_read_as_an_image_with_its_axes(tmp_path: Path) -> None:
    found = read_stored(filled(tmp_path / "c.zarr").path)
    assert found.names == "yx"
    np.testing.assert_array_equal(found.data, places(SHAPE))


def test_progress_counts_every_coarser_chunk(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    filled(tmp_path / "c.zarr").build_pyramid(lambda *numbers: told.append(numbers))
    assert told == [(i, 9) for i in range(1, 10)]  # 25 x 35: 6 chunks, 13 x 18: 2, 7 x 9: 1


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (50, 71)},
        {"chunk": (16, 32)},
        {"axes": "tyx", "shape": (1, 50, 70)},
        {"voxel_size_um": (0.5, 0.5)},
        {"name": "nuclei"},
    ],
)
def test_another_image_is_never_written_over(change: dict[str, Any], tmp_path: Path) -> None:
    first = files(filled(tmp_path / "c.zarr").path)
    options: dict[str, Any] = {"shape": SHAPE, "axes": "yx", "chunk": CHUNK} | change
    with pytest.raises(OutputExistsError, match=r"c\.zarr.*is there.*--overwrite"):
        LabelStore.create(tmp_path / "c.zarr", **options)
    assert files(tmp_path / "c.zarr") == first


def test_what_is_no_zarr_group_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine.partial").touch()
    (tmp_path / "file").touch()
    zarr.create_array(tmp_path / "array.zarr", shape=SHAPE, dtype="uint8")
    before = files(tmp_path)
    for name in ("folder", "file", "array.zarr"):
        with pytest.raises(OutputExistsError, match=rf"{name}.*--overwrite"):
            LabelStore.create(tmp_path / name, SHAPE, "yx", chunk=CHUNK)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("box", "at", "words"),
    [
        (Box((8, 0), (16, 16)), (), "cuts chunks"),
        (Box((0, 0), (16, 20)), (), "cuts chunks"),
        (Box((48, 64), (50, 71)), (), "does not lie"),
        (Box((-16, 0), (0, 16)), (), "does not lie"),
        (Box((0, 0), (0, 16)), (), "does not lie"),
        (Box((0, 0), (16, 16)), (0,), "does not lie"),
        (Box((0,), (16,)), (50,), "does not lie"),
    ],
)
def test_a_box_that_would_share_a_chunk_is_refused(
    box: Box, at: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    store = LabelStore.create(tmp_path / "c.zarr", SHAPE, "yx", chunk=CHUNK)
    with pytest.raises(GeometryError, match=words):
        store.write(box, np.ones(box.shape, np.int32), at)
    assert not store.read().any()


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "c.zarr", SHAPE, "yx", chunk=CHUNK)
    box = Box((0, 0), (16, 16))
    with pytest.raises(ImageError, match="from -1"):
        store.write(box, np.full((16, 16), -1, np.int32))
    with pytest.raises(ImageError, match="to 4294967296"):
        store.write(box, np.full((16, 16), 2**32, np.int64))
    with pytest.raises(GeometryError, match="shape"):
        store.write(box, np.ones((16, 15), np.int32))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"axes": "xy"}, InputError),
        ({"axes": "cyx"}, InputError),
        ({"shape": (50, 0)}, InputError),
        ({"shape": (50, 70, 3)}, InputError),
        ({"voxel_size_um": (0.5,)}, InputError),
        ({"voxel_size_um": (0.5, 0.0)}, InputError),
        ({"voxel_size_um": (0.5, float("nan"))}, InputError),
        ({"name": "../up"}, InputError),
        ({"name": ".."}, InputError),
        ({"name": ""}, InputError),
        ({"chunk": (16,)}, GeometryError),
        ({"chunk": (16, 0)}, GeometryError),
        ({"chunk": (16, 16, 16)}, GeometryError),
    ],
)
def test_an_image_that_cannot_be_is_refused_before_anything_is_made(
    change: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"shape": SHAPE, "axes": "yx", "chunk": CHUNK} | change
    with pytest.raises(error) as caught:
        LabelStore.create(tmp_path / "c.zarr", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
