"""The table is that of the whole image, in whatever blocks it was summed."""

from __future__ import annotations

import csv
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from zoo_models.errors import GeometryError, InputError
from zoo_models.geometry import Box
from zoo_models.prediction.object_table import (
    ObjectSums,
    merge_tables,
    merged_in_portions,
    partial_table,
    write_table,
)

ARRAYS = ("id", "pixels", "start", "stop", "coordinates", "intensity")


def scene(shape: tuple[int, ...], channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels with gaps between their numbers, some of them large, and an image of floats."""
    random = np.random.default_rng(sum(shape))
    coarse = random.choice([0, 0, 3, 7, 2_000_000_000], tuple(-(-n // 3) for n in shape))
    labels = coarse.repeat(3, 0).repeat(3, 1)[tuple(slice(n) for n in shape)]
    if len(shape) == 3:
        labels = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in shape)]
    image = random.normal(size=(channels, *shape)).astype(np.float32)
    return labels.astype(np.int32), image


def whole(labels: np.ndarray, image: np.ndarray) -> ObjectSums:
    return partial_table(labels, image, Box.of_shape(labels.shape))


def part(labels: np.ndarray, image: np.ndarray, box: Box) -> ObjectSums:
    return partial_table(labels[box.slices], image[(slice(None), *box.slices)], box)


def rows(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        found = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


@pytest.mark.parametrize(
    ("shape", "axes"), [((31, 40), "yx"), ((7, 20, 16), "zyx")], ids=["2d", "3d"]
)
def test_the_table_of_an_image_is_that_of_scikit_image(
    shape: tuple[int, ...], axes: str, tmp_path: Path
) -> None:
    labels, image = scene(shape, channels=2)
    labels[labels > 7] = 11  # scikit-image makes a list as long as the largest label
    write_table(tmp_path / "t.csv", [whole(labels, image)], axes=axes)
    found = rows(tmp_path / "t.csv")
    expected = regionprops_table(
        labels,
        np.moveaxis(image, 0, -1).astype(np.float64),
        properties=("label", "area", "bbox", "centroid", "mean_intensity"),
    )
    d = len(axes)
    pairs = {"id": "label", "area_pixels": "area"}
    for i, axis in enumerate(axes):
        pairs |= {
            f"bbox_{axis}_start": f"bbox-{i}",
            f"bbox_{axis}_stop": f"bbox-{i + d}",
            f"centroid_{axis}": f"centroid-{i}",
        }
    pairs |= {f"mean_intensity_{c}": f"mean_intensity-{c}" for c in range(2)}
    assert set(found) == set(pairs)
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(found[ours], expected[theirs], rtol=1e-12, err_msg=ours)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A shape, and boxes that partition it, in any order."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=2, max_size=3)))
    cuts = [sorted({0, n} | draw(st.sets(st.integers(1, n), max_size=3))) for n in shape]
    boxes = [
        Box(tuple(a for a, _ in sides), tuple(b for _, b in sides))
        for sides in product(*map(pairwise, cuts))
    ]
    return shape, draw(st.permutations(boxes))


@given(partitions())
def test_any_partition_into_blocks_gives_the_same_table(
    partition: tuple[tuple[int, ...], list[Box]],
) -> None:
    shape, boxes = partition
    labels, image = scene(shape)
    expected = whole(labels, image)
    parts = [part(labels, image, box) for box in boxes]
    found = merge_tables(parts)
    for name in ("id", "pixels", "start", "stop", "coordinates"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_allclose(found.intensity, expected.intensity, rtol=1e-9, atol=1e-9)


@given(partitions())
def test_the_order_of_blocks_does_not_show_in_a_single_bit(
    partition: tuple[tuple[int, ...], list[Box]],
) -> None:
    shape, boxes = partition
    labels, image = scene(shape)
    parts = [part(labels, image, box) for box in boxes]
    one, other = merge_tables(parts), merge_tables(sorted(parts, key=lambda p: p.pixels.sum()))
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


@given(partitions(), st.integers(1, 20))
def test_portions_are_the_table_cut_into_pieces(
    partition: tuple[tuple[int, ...], list[Box]], most: int
) -> None:
    shape, boxes = partition
    labels, image = scene(shape)
    labels = np.searchsorted(np.unique(labels), labels)  # without gaps
    parts = [part(labels, image, box) for box in boxes]
    expected = merge_tables(parts)
    portions = list(merged_in_portions(parts.__getitem__, len(parts), most=most))
    assert all(len(portion.id) <= most for portion in portions)
    for name in ARRAYS:
        found = np.concatenate([getattr(portion, name) for portion in portions])
        assert found.tobytes() == getattr(expected, name).tobytes(), name


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_in_portions_has_the_rows_of_all(name: str, tmp_path: Path) -> None:
    labels, image = scene((9, 9))
    sums = whole(labels, image)
    pieces = [sums.between(0, 100), sums.between(100, 2**31)]
    assert all(len(piece.id) for piece in pieces)
    write_table(tmp_path / name, pieces, axes="yx")
    write_table(tmp_path / f"one_{name}", [sums], axes="yx")
    read = pyarrow_rows if name.endswith("parquet") else Path.read_text
    assert read(tmp_path / name) == read(tmp_path / f"one_{name}")


def pyarrow_rows(path: Path) -> object:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def test_sums_stay_exact_far_from_the_origin() -> None:
    side = 512
    box = Box((99_488, 99_488), (100_000, 100_000))
    image = np.full((1, side, side), 0.1)
    sums = partial_table(np.ones((side, side), np.int32), image, box)
    assert sums.coordinates.tolist() == [[side * sum(range(99_488, 100_000))] * 2]
    assert (sums.start.tolist(), sums.stop.tolist()) == ([[99_488] * 2], [[100_000] * 2])
    np.testing.assert_allclose(sums.intensity, 0.1 * side * side, rtol=1e-12)


def test_intensities_of_integers_do_not_overflow() -> None:
    image = np.full((1, 300, 300), 65_535, np.uint16)
    sums = whole(np.ones((300, 300), np.int32), image)
    assert sums.intensity.tolist() == [[65_535 * 300 * 300]]


def test_blocks_without_objects_add_nothing() -> None:
    labels, image = scene((9, 9))
    empty = partial_table(np.zeros((4, 4), np.int32), np.ones((1, 4, 4)), Box((9, 0), (13, 4)))
    assert len(empty.id) == 0
    found, expected = merge_tables([empty, whole(labels, image), empty]), whole(labels, image)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert getattr(found, name).dtype == getattr(empty, name).dtype


def test_a_table_without_objects_has_its_columns(tmp_path: Path) -> None:
    nothing = whole(np.zeros((4, 4), np.int32), np.ones((1, 4, 4)))
    write_table(tmp_path / "t.csv", [nothing], axes="yx")
    head = (tmp_path / "t.csv").read_text()
    assert head == (
        "id,area_pixels,bbox_y_start,bbox_y_stop,bbox_x_start,bbox_x_stop,centroid_y,centroid_x,"
        "mean_intensity\n"
    )


def test_sums_come_back_from_a_file_of_arrays(tmp_path: Path) -> None:
    sums = whole(*scene((9, 9), channels=2))
    np.savez(tmp_path / "block.npz", **vars(sums))
    with np.load(tmp_path / "block.npz") as arrays:
        back = ObjectSums(**arrays)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(sums, name))


@pytest.mark.parametrize(
    ("axes", "shape", "size", "column", "unit"),
    [
        ("yx", (6, 6), (0.5, 0.25), "area_um2", 0.125),
        ("zyx", (6, 6, 6), (2.0, 0.5, 0.25), "volume_um3", 0.25),
        ("tyx", (6, 6, 6), (0.5, 0.25), "area_um2", 0.125),
    ],
)
def test_sizes_in_micrometres_need_the_voxel_size(
    axes: str,
    shape: tuple[int, ...],
    size: tuple[float, ...],
    column: str,
    unit: float,
    tmp_path: Path,
) -> None:
    sums = whole(*scene(shape))
    write_table(tmp_path / "t.csv", [sums], axes=axes, voxel_size_um=size)
    found = rows(tmp_path / "t.csv")
    np.testing.assert_allclose(found[column], sums.pixels * unit)
    write_table(tmp_path / "t.csv", [sums], axes=axes)
    assert not [name for name in rows(tmp_path / "t.csv") if "um" in name]


def test_parquet_holds_what_csv_holds(tmp_path: Path) -> None:
    from pyarrow import parquet

    sums = whole(*scene((20, 20), channels=2))
    for name in ("t.csv", "t.parquet"):
        write_table(tmp_path / name, [sums], axes="yx", voxel_size_um=(0.3, 0.3))
    table = parquet.read_table(tmp_path / "t.parquet")
    expected = rows(tmp_path / "t.csv")
    assert table.column_names == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values, name)
    assert [str(table.schema.field(n).type) for n in ("id", "centroid_y")] == ["int64", "double"]


def test_a_table_is_written_again_with_the_same_bytes_and_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    sums = whole(*scene((20, 20)))
    for name in ("t.csv", "t.parquet"):
        write_table(tmp_path / name, [sums], axes="yx")
        first = (tmp_path / name).read_bytes()
        write_table(tmp_path / name, [sums], axes="yx")
        assert (tmp_path / name).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.parquet"]


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = whole(*scene((9, 9)))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"t\.xlsx.*\.csv or \.parquet"):
        write_table(tmp_path / "t.xlsx", [sums], axes="yx")
    with pytest.raises(InputError, match="axes 'zyx'"):
        write_table(tmp_path / "t.csv", [sums], axes="zyx")
    with pytest.raises(InputError, match="voxel size"):
        write_table(tmp_path / "t.csv", [sums], axes="yx", voxel_size_um=(0.5,))
    with pytest.raises(InputError, match="cannot be written"):
        write_table(tmp_path / "file" / "t.csv", [sums], axes="yx")
    with pytest.raises(InputError, match="no object tables"):
        merge_tables([])
    with pytest.raises(GeometryError, match="c before it"):
        partial_table(np.zeros((4, 4), np.int32), np.zeros((4, 4)), Box.of_shape((4, 4)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow.*pip install 'spoco-zoo\[large\]'.*\.csv"):
        write_table(tmp_path / "t.parquet", [sums], axes="yx")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
