"""Labels to and from files, and back through the readers of other software."""

import gc
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import skimage.io
import tifffile
from bioimageio.core.io import load_image
from numpy.typing import NDArray
from PIL import Image as Pillow

from zoo_models.errors import ImageError, OutputExistsError
from zoo_models.prediction.images import read_image, read_labels, write_labels

Labels = NDArray[np.integer]


def labels_of(*shape: int, largest: int = 300, dtype: Any = np.int64) -> Labels:
    labels = np.random.default_rng(0).integers(0, largest, shape).astype(dtype)
    labels.flat[0] = largest
    return labels


@pytest.mark.parametrize(("shape", "axes"), [((16, 12), "yx"), ((3, 16, 12), "zyx")])
@pytest.mark.parametrize("largest", [300, 65535, 65536, 2**32 - 1])
def test_labels_come_back_with_their_values_and_axes_as_uint32(
    tmp_path: Path, shape: tuple[int, ...], axes: str, largest: int
) -> None:
    labels = labels_of(*shape, largest=largest)
    path = tmp_path / "out" / "a.ome.tif"
    write_labels(path, labels, axes=axes)
    back = read_labels(path)
    assert back.dtype == np.uint32
    np.testing.assert_array_equal(back, labels)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert len(tiff.series) == 1
        assert tiff.series[0].axes == axes.upper()
        assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def load_with_core(path: Path) -> Labels:
    """bioimageio.core leaves the file open: collect it here, where the warning is expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        labels = load_image(path)
        gc.collect()
    return labels


@pytest.mark.parametrize(("shape", "axes"), [((16, 12), "yx"), ((5, 16, 12), "zyx")])
def test_written_labels_are_read_alike_by_other_software(
    tmp_path: Path, shape: tuple[int, ...], axes: str, caplog: pytest.LogCaptureFixture
) -> None:
    labels = labels_of(*shape)
    write_labels(tmp_path / "a.ome.tif", labels, axes=axes)
    with caplog.at_level(logging.WARNING):
        for reader in (load_with_core, skimage.io.imread, tifffile.imread, iio.imread):
            np.testing.assert_array_equal(reader(tmp_path / "a.ome.tif"), labels)
    assert not caplog.records


def test_the_voxel_size_travels_with_the_labels(tmp_path: Path) -> None:
    sizes = (2.0, 0.5, 0.25)
    write_labels(tmp_path / "a.tif", labels_of(3, 16, 12), axes="zyx", voxel_size_um=sizes)
    assert read_image(tmp_path / "a.tif").voxel_size_um == sizes
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert 'PhysicalSizeZ="2.0" PhysicalSizeZUnit="µm"' in str(tiff.ome_metadata)


def test_equal_labels_give_equal_bytes_and_others_another_uuid(tmp_path: Path) -> None:
    labels = labels_of(16, 12)
    others = labels.copy()
    others[3, 4] += 1

    def written(name: str, labels: Labels, size: tuple[float, float]) -> tuple[bytes, str]:
        write_labels(tmp_path / name, labels, axes="yx", voxel_size_um=size)
        with tifffile.TiffFile(tmp_path / name) as tiff:
            (uuid,) = re.findall('UUID="(urn:uuid:[0-9a-f-]{36})"', tiff.ome_metadata or "")
        return (tmp_path / name).read_bytes(), uuid

    first = written("a.tif", labels, (0.5, 0.5))
    assert written("b.tif", labels.astype(np.uint32), (0.5, 0.5)) == first
    uuids = {first[1], written("c.tif", others, (0.5, 0.5))[1], written("d.tif", labels, (1, 1))[1]}
    assert len(uuids) == 3


def test_one_plane_of_a_stack_stays_readable(tmp_path: Path) -> None:
    labels = labels_of(1, 16, 12)
    write_labels(tmp_path / "a.tif", labels, axes="zyx")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels[0])


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_labels(path, labels_of(16, 12), axes="yx")
    assert path.read_text() == "precious"
    write_labels(path, labels_of(16, 12), axes="yx", overwrite=True)
    np.testing.assert_array_equal(read_labels(path), labels_of(16, 12))


def test_nothing_half_written_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(ImageError, match="No space left on device"):
        write_labels(tmp_path / "a.tif", labels_of(16, 12), axes="yx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_labels(tmp_path / "out" / "a.tif", labels_of(16, 12), axes="yx")


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (labels_of(16, 12), {"axes": "zyx"}, "axes 'zyx'"),
        (labels_of(16, 12), {"axes": "xy"}, "axes 'xy'"),
        (-labels_of(16, 12), {"axes": "yx"}, "from -300"),
        (labels_of(16, 12, largest=2**32), {"axes": "yx"}, "4294967296"),
        (np.zeros((16, 12)), {"axes": "yx"}, "float64"),
        (np.zeros((0, 12), int), {"axes": "yx"}, "at least one pixel"),
        (labels_of(16, 12), {"axes": "yx", "voxel_size_um": (1.0,)}, "one size per axis"),
    ],
)
def test_labels_that_do_not_fit_the_file_are_refused(
    tmp_path: Path, labels: Labels, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        write_labels(tmp_path / "a.tif", labels, **options)
    assert list(tmp_path.iterdir()) == []


def test_labels_are_written_as_tiff_only(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"ending in \.tif"):
        write_labels(tmp_path / "a.png", labels_of(16, 12), axes="yx")


def test_the_indices_of_a_palette_png_are_the_labels(tmp_path: Path) -> None:
    indices = labels_of(16, 12, largest=9, dtype=np.uint8)
    picture = Pillow.fromarray(indices).convert("P")
    picture.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), indices)


def test_labels_of_a_16_bit_png_are_read(tmp_path: Path) -> None:
    labels = labels_of(16, 12, largest=60000, dtype=np.uint16)
    iio.imwrite(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)


def test_floats_that_are_whole_numbers_are_labels(tmp_path: Path) -> None:
    labels = labels_of(16, 12)
    tifffile.imwrite(tmp_path / "a.tif", labels.astype(np.float32))
    back = read_labels(tmp_path / "a.tif")
    assert np.issubdtype(back.dtype, np.integer)
    np.testing.assert_array_equal(back, labels)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractions_are_no_labels(tmp_path: Path, value: float) -> None:
    pixels = np.ones((16, 12), np.float32)
    pixels[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(ImageError, match="1 of 192 pixels"):
        read_labels(tmp_path / "a.tif")


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", -np.ones((16, 12), np.int16))
    with pytest.raises(ImageError, match="down to -1"):
        read_labels(tmp_path / "a.tif")


def test_a_mask_becomes_zero_and_one(tmp_path: Path) -> None:
    mask = labels_of(16, 12) > 100
    tifffile.imwrite(tmp_path / "a.tif", mask)
    back = read_labels(tmp_path / "a.tif")
    assert np.issubdtype(back.dtype, np.integer)
    np.testing.assert_array_equal(back, mask.astype(int))


def test_labels_of_several_channels_are_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 12, 3)).astype(np.uint8)
    iio.imwrite(tmp_path / "a.png", pixels)
    with pytest.raises(ImageError, match="3 channels"):
        read_labels(tmp_path / "a.png")


def test_labels_in_a_jpeg_are_refused(tmp_path: Path) -> None:
    iio.imwrite(tmp_path / "a.jpg", np.zeros((16, 12), np.uint8))
    with pytest.raises(ImageError, match="JPEG"):
        read_labels(tmp_path / "a.jpg")
