"""Padded images and cropped results keep values, types and voxel sizes; faults leave nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.zoo_models.prediction.test_padding import record
from zoo_models.errors import ImageError, OutputExistsError
from zoo_models.prediction.accepted_sizes import AcceptedSizes, SizeRange
from zoo_models.prediction.images import read_image
from zoo_models.prediction.padded_files import crop_predicted, pad_image
from zoo_models.prediction.padding import PadRecord


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        (">u2", "uint16"),
        (">f4", "float32"),
        ("bool", "uint8"),
        ("int32", "float32"),
        ("float64", "float32"),
        ("float16", "float32"),
    ],
)
def test_a_padded_file_keeps_pixel_type_and_voxel_size(
    tmp_path: Path, dtype: str, stored: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype)
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    if dtype in ("uint8", ">u2", ">f4"):  # as Fiji writes
        options: dict[str, Any] = {"imagej": True, "resolution": (4, 4)}
    else:
        options = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=metadata, **options)
    accepted = AcceptedSizes("", "zyx", (SizeRange(4, 4),) * 3, 1)
    out = tmp_path / "a_padded.tif"
    made = pad_image(read_image(tmp_path / "a.tif"), accepted, out)
    assert made == PadRecord.load(tmp_path / "a_padded.json")
    assert made.voxel_size_um == ((0.5, 0.25, 0.25) if "imagej" in options else None)
    padded = read_image(out)
    assert (padded.source_dtype, padded.axes) == (stored, "czyx")
    assert padded.voxel_size_um == made.voxel_size_um
    crop_predicted(out, made, tmp_path / "back.tif")
    back = read_image(tmp_path / "back.tif")
    np.testing.assert_array_equal(back.data[0], pixels)
    assert (back.source_dtype, back.voxel_size_um) == (stored, made.voxel_size_um)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", ">f4", "int64", "bool"])
def test_an_array_file_keeps_axes_and_type(tmp_path: Path, dtype: str) -> None:
    predicted = np.random.default_rng(0).integers(0, 9, (1, 2, 8, 12)).astype(dtype)
    np.save(tmp_path / "p.npy", predicted)
    shape, _ = crop_predicted(tmp_path / "p.npy", record((7, 9), (8, 12)), tmp_path / "o.npy")
    found = np.load(tmp_path / "o.npy")
    assert found.shape == shape == (1, 2, 7, 9)
    assert found.dtype == predicted.dtype
    np.testing.assert_array_equal(found, predicted[:, :, :7, :9])


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("zcyx", {"imagej": True}),  # Fiji's order
        ("czyx", {}),  # bioimageio: no names
        ("zyxc", {}),  # ilastik
        ("zyx", {"imagej": True}),
        ("czyx", {"ome": True}),
    ],
)
def test_predictions_of_other_software_become_czyx(
    tmp_path: Path, axes: str, options: dict[str, Any]
) -> None:
    sizes = {"c": 2, "z": 4, "y": 8, "x": 12}
    predicted = np.random.default_rng(0).random([sizes[a] for a in axes]).astype(np.float32)
    if options:
        tifffile.imwrite(tmp_path / "p.tif", predicted, metadata={"axes": axes.upper()}, **options)
    else:
        tifffile.imwrite(tmp_path / "p.tif", predicted, photometric="minisblack")
    crop_predicted(tmp_path / "p.tif", record((3, 7, 9), (4, 8, 12)), tmp_path / "o.tif")
    order = [axes.index(a) for a in "czyx" if a in axes]
    with tifffile.TiffFile(tmp_path / "o.tif") as tiff:
        assert tiff.series[0].axes == "CZYX"[-len(axes) :]
        found = tiff.asarray()
    np.testing.assert_array_equal(found, predicted.transpose(order)[..., :3, :7, :9])


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_what_a_tiff_cannot_hold_is_refused_with_what_can(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "p.npy", np.ones((8, 12), dtype))
    with pytest.raises(ImageError, match=rf"type {dtype}, expected.*write o\.npy instead"):
        crop_predicted(tmp_path / "p.npy", record((7, 9), (8, 12)), tmp_path / "o.tif")
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.npy", b"", "cannot be read"),
        ("p.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("p.tif", b"no image", "cannot be read"),
        ("p.h5", b"HDF", r"suffix '\.h5', expected \.tif or \.npy"),
        ("q.tif", None, "no such file"),
    ],
)
def test_a_prediction_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=words):
        crop_predicted(tmp_path / name, record((7, 9), (8, 12)), tmp_path / "o.npy")


def test_a_truncated_prediction_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "p.tif", pixels, compression="zlib", photometric="minisblack")
    whole = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "p.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cannot be read"):
        crop_predicted(tmp_path / "p.tif", record((60, 60), (64, 64)), tmp_path / "o.npy")


def test_an_array_of_python_objects_is_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([[print]], object), allow_pickle=True)
    with pytest.raises(ImageError, match="cannot be read"):
        crop_predicted(tmp_path / "p.npy", record((1, 1), (1, 1)), tmp_path / "o.npy")


def test_a_failure_leaves_neither_image_nor_record(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 7), np.uint8))
    image = read_image(tmp_path / "a.tif")
    accepted = AcceptedSizes("", "yx", (SizeRange(4, 4),) * 2, 1)
    (tmp_path / "out" / "a_padded.tif").mkdir(parents=True)  # a folder under the image's name
    with pytest.raises(OutputExistsError, match=r"a_padded\.tif"):
        pad_image(image, accepted, tmp_path / "out" / "a_padded.tif")
    with pytest.raises(ImageError, match=r"a_padded\.tif: cannot be written"):
        pad_image(image, accepted, tmp_path / "out" / "a_padded.tif", overwrite=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a_padded.tif"]


def test_only_axes_that_their_writer_named_decide_between_equal_sizes(tmp_path: Path) -> None:
    predicted = np.random.default_rng(0).random((8, 8, 12)).astype(np.float32)
    tifffile.imwrite(tmp_path / "fiji.tif", predicted, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "bare.tif", predicted, photometric="minisblack")
    padding = record((7, 9), (8, 12))
    crop_predicted(tmp_path / "fiji.tif", padding, tmp_path / "o.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), predicted[:, :7, :9])
    with pytest.raises(ImageError, match=r"bare\.tif.*2 choices of axes.*named axes"):
        crop_predicted(tmp_path / "bare.tif", padding, tmp_path / "p.npy")
