"""Volumes named by their path are read from TIFF, HDF5 and Zarr, whole or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.volume_files import write_hdf5, write_ome_zarr
from training.datasets import Sample, read_data
from training.layouts.arrays import Array, as_array
from training.sections import DataSection, Split
from zoo_models.errors import ImageError

SHAPE = (6, 5, 7)
VOLUME = np.arange(210, dtype=np.uint16).reshape(SHAPE)  # every voxel its own value
IDS = (VOLUME // 30).astype(np.uint32)


def read(
    folder: Path, image: str, labels: str, *, axes: str = "zyx", channels: int = 1, **more: Any
) -> Sample:
    volumes = {"train": {"images": [image], "labels": [labels]}}
    values = {"folder": str(folder), "layout": "volumes", "axes": axes, "volumes": volumes, **more}
    (sample,) = read_data(DataSection.model_validate(values), "train", channels=channels)
    return sample


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same volume and labels as TIFF, HDF5 and plain Zarr; do not write to it."""
    folder = tmp_path_factory.mktemp("pair")
    tifffile.imwrite(folder / "raw.tif", VOLUME)
    tifffile.imwrite(folder / "ids.tif", IDS)
    write_hdf5(folder / "all.h5", raw=VOLUME, labels__cells=IDS, odd=VOLUME / 7)
    group = zarr.open_group(folder / "all.zarr", mode="w")
    group["raw"] = VOLUME
    group["labels/cells"] = IDS
    return folder


@pytest.mark.parametrize("image", ["raw.tif", "all.h5:/raw", "all.h5:raw", "all.zarr/raw"])
@pytest.mark.parametrize("labels", ["ids.tif", "all.h5:/labels/cells", "all.zarr/labels/cells"])
def test_a_volume_is_the_same_from_tiff_hdf5_and_zarr(pair: Path, image: str, labels: str) -> None:
    sample = read(pair, image, labels, gain=0.5, offset=1.0)
    assert np.array_equal(sample.image, VOLUME[np.newaxis] * 0.5 + 1.0)
    assert np.array_equal(sample.labels, IDS)
    assert sample.name == image
    assert sample.image.dtype == np.float32
    assert sample.labels.dtype == np.int32


@pytest.mark.parametrize("version", ["0.3", "0.4", "0.5"])
@pytest.mark.parametrize("place", ["image.ome.zarr", "image.ome.zarr/s0"])
def test_axes_of_ome_zarr_are_those_that_it_names(tmp_path: Path, version: str, place: str) -> None:
    colours = np.stack([VOLUME, VOLUME + 1000])
    write_ome_zarr(tmp_path / "image.ome.zarr", colours[np.newaxis], "tczyx", version=version)
    write_ome_zarr(tmp_path / "ids.zarr", IDS.transpose(2, 1, 0), "xyz", version=version)
    sample = read(tmp_path, place, "ids.zarr", channels=2)
    assert np.array_equal(sample.image, colours)
    assert np.array_equal(sample.labels, IDS)


def test_labels_inside_an_ome_zarr_image_are_found(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "image.zarr", VOLUME[0], "yx", version="0.4")
    write_ome_zarr(tmp_path / "image.zarr" / "labels" / "cells", IDS[0], "yx", version="0.4")
    sample = read(tmp_path, "image.zarr", "image.zarr/labels/cells", axes="yx")
    assert np.array_equal(sample.image[0], VOLUME[0])
    assert np.array_equal(sample.labels, IDS[0])


def test_channels_come_first_where_no_axes_are_named(tmp_path: Path) -> None:
    colours = np.stack([VOLUME, VOLUME + 1000])
    write_hdf5(tmp_path / "a.h5", raw=colours, ids=IDS[np.newaxis].astype(np.float32))
    sample = read(tmp_path, "a.h5:/raw", "a.h5:/ids", channels=2)
    assert np.array_equal(sample.image, colours)
    assert np.array_equal(sample.labels, IDS)


def test_negative_labels_are_regions_to_ignore_and_become_background(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", raw=VOLUME, ids=IDS.astype(np.int16) - 2)
    sample = read(tmp_path, "a.h5:/raw", "a.h5:/ids")
    assert np.array_equal(sample.labels, np.maximum(IDS.astype(int) - 2, 0))


@settings(max_examples=30)
@given(st.data(), st.sampled_from(["raw.tif", "all.h5:/raw", "all.zarr/raw"]))
def test_a_crop_is_the_part_of_the_whole(pair: Path, data: st.DataObject, image: str) -> None:
    limits: dict[str, tuple[int, int]] = {}
    for axis in data.draw(st.sets(st.sampled_from("zyx"))):
        size = SHAPE["zyx".index(axis)]
        start = data.draw(st.integers(0, size - 1))
        limits[axis] = (start, data.draw(st.integers(start + 1, size)))
    sample = read(pair, image, "ids.tif", crop={"train": limits})
    part = tuple(slice(*limits.get(axis, (None,))) for axis in "zyx")
    assert np.array_equal(sample.image[0], VOLUME[part])
    assert np.array_equal(sample.labels, IDS[part])


def test_image_and_labels_are_compared_whole_even_where_a_part_is_read(
    pair: Path, tmp_path: Path
) -> None:
    write_hdf5(tmp_path / "longer.h5", ids=np.concatenate([IDS, IDS]))
    labels = f"{tmp_path}/longer.h5:/ids"
    with pytest.raises(ImageError, match=r"labels of shape \(12, 5, 7\), expected \(6, 5, 7\)"):
        read(pair, "raw.tif", labels, crop={"train": {"z": [0, 3]}})


@pytest.mark.parametrize("image", ["raw.tif", "all.h5:/raw", "all.zarr/raw"])
def test_a_crop_that_leaves_the_volume_is_refused(pair: Path, image: str) -> None:
    with pytest.raises(ImageError, match=r"is 5 long along y, but data\.crop asks for \[2, 6\]"):
        read(pair, image, "ids.tif", crop={"train": {"y": [2, 6]}})


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ("all.h5", "is no array, found labels/cells, odd, raw inside"),
        ("all.h5:/rwa", "all.h5:/rwa: is no array, found labels/cells"),
        ("al.h5:/raw", "did you mean all.h5"),
        ("al.zarr/raw", "does not exist, expected a Zarr store: did you mean all.zarr"),
        ("all.zarr/rwa", "all.zarr/rwa: is no array, found labels, raw inside"),
        ("all.zarr", "is no array, found labels, raw inside"),
        ("none.tif", "none.tif: does not exist"),
    ],
)
def test_a_wrong_path_is_answered_with_what_is_there(
    pair: Path, image: str, complaint: str
) -> None:
    with pytest.raises(ImageError) as caught:
        read(pair, image, "ids.tif")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (VOLUME[0], "has the shape (5, 7), expected the axes zyx"),
        (VOLUME[np.newaxis, np.newaxis], "has the shape (1, 1, 6, 5, 7), expected the axes zyx"),
        (np.stack([VOLUME] * 3), "has 3 channel(s), expected 1"),
        (VOLUME.astype(complex), "has pixels of type complex128"),
        (np.where(VOLUME == 3, np.inf, VOLUME), "1 of 210 pixels are not finite"),
    ],
)
def test_an_array_that_is_no_image_for_the_network_is_refused(
    pair: Path, tmp_path: Path, array: np.ndarray, complaint: str
) -> None:
    write_hdf5(tmp_path / "a.h5", raw=array)
    with pytest.raises(ImageError) as caught:
        read(pair, f"{tmp_path}/a.h5:/raw", "ids.tif")
    assert complaint in str(caught.value)


def test_a_time_series_a_probability_map_and_a_damaged_file_are_refused(
    pair: Path, tmp_path: Path
) -> None:
    write_ome_zarr(tmp_path / "film.zarr", np.stack([VOLUME] * 2), "tzyx", version="0.5")
    with pytest.raises(
        ImageError, match=r"\(2, 6, 5, 7\) and the axes tzyx, expected the axes zyx"
    ):
        read(pair, f"{tmp_path}/film.zarr", "ids.tif")
    with pytest.raises(ImageError, match="labels of type float64, expected whole numbers"):
        read(pair, "raw.tif", "all.h5:/odd")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ImageError, match="expected a complete HDF5 file"):
        read(pair, "raw.tif", f"{tmp_path}/text.h5:/ids")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.h5:/x/y", Array(Path("/d/a.h5"), "x/y")),
        ("/e/a.hdf5:x", Array(Path("/e/a.hdf5"), "x")),
        ("s/a.hdf", Array(Path("/d/s/a.hdf"), "")),
        ("a.ome.zarr", Array(Path("/d/a.ome.zarr"), "")),
        ("b.zarr/labels/x.zarr", Array(Path("/d/b.zarr"), "labels/x.zarr")),
        ("a.h5.tif", None),
        ("zarr/a.png", None),
    ],
)
def test_paths_say_what_they_lead_to(text: str, expected: Array | None) -> None:
    assert as_array(text, Path("/d")) == expected


def test_a_split_that_is_not_named_is_refused(pair: Path) -> None:
    volumes = {"train": {"images": ["raw.tif"], "labels": ["ids.tif"]}}
    values = {"folder": str(pair), "layout": "volumes", "axes": "zyx", "volumes": volumes}
    split: Split = "val"
    with pytest.raises(
        ImageError, match=r"no split 'val', found train: add \[data\.volumes\.val\]"
    ):
        read_data(DataSection.model_validate(values), split, channels=1)


def test_planes_of_a_stack_are_images_whose_objects_are_connected(tmp_path: Path) -> None:
    ids = np.zeros(SHAPE, np.uint16)
    ids[0, :2, :2] = ids[0, 3:, 5:] = ids[1, :, 3] = 9  # one object in 3D, two in plane 0
    ids[1, 0, 0] = ids[1, 1, 1] = 4  # they meet at a corner
    tifffile.imwrite(tmp_path / "raw.tif", VOLUME)
    tifffile.imwrite(tmp_path / "ids.tif", ids)
    values = {
        "folder": str(tmp_path),
        "layout": "volumes",
        "planes": True,
        "volumes": {"train": {"images": ["raw.tif"], "labels": ["ids.tif"]}},
        "crop": {"train": {"z": [0, 3]}},
    }
    planes = read_data(DataSection.model_validate(values), "train", channels=1)
    assert [p.name[-5:] for p in planes] == ["_z000", "_z001", "_z002"]
    assert [np.unique(p.labels).tolist() for p in planes] == [[0, 1, 2], [0, 1, 2], [0]]
    assert planes[1].labels[0, 0] == planes[1].labels[1, 1] == 1
    for z, plane in enumerate(planes):
        assert np.array_equal(plane.image[0], VOLUME[z])
        assert np.array_equal(plane.labels > 0, ids[z] > 0)


def test_planes_are_for_2d_networks(tmp_path: Path) -> None:
    values = {"folder": str(tmp_path), "planes": True, "axes": "zyx"}
    with pytest.raises(ValueError, match='planes = true: set axes = "yx"'):
        DataSection.model_validate(values)
