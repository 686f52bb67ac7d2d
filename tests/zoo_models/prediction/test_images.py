"""Images from files: what is read, and what is refused with one clear line."""

import logging
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from zoo_models.errors import ImageError
from zoo_models.prediction.images import expect_image, read_image

Array = NDArray[Any]


def positions(*shape: int, dtype: Any = np.uint16) -> Array:
    """An image whose values tell their positions."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def noise(*shape: int, dtype: Any = np.uint16) -> Array:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def message_of(path: Path, **options: Any) -> str:
    """The error of reading `path`, which must be one line that names the file."""
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, bool])
def test_a_2d_tiff_becomes_one_float32_channel(tmp_path: Path, dtype: Any) -> None:
    pixels = positions(7, 9, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "cyx"
    assert image.data.dtype == np.float32
    assert image.source_dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(image.data, pixels[None].astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((5, 64, 48), {}, "czyx"),
        ((5, 64, 48), {"metadata": None}, "czyx"),
        ((5, 64, 48), {"ome": True, "metadata": {"axes": "ZYX"}}, "czyx"),
        ((5, 64, 48), {"ome": True, "metadata": {"axes": "CYX"}}, "cyx"),
        ((5, 64, 48), {"imagej": True, "metadata": {"axes": "ZYX"}}, "czyx"),
        ((1, 64, 48), {}, "cyx"),
        ((1, 1, 1, 64, 48), {"ome": True, "metadata": {"axes": "TCZYX"}}, "cyx"),
        ((1, 48), {}, "cyx"),
        ((64, 1), {}, "cyx"),
    ],
)
def test_stacks_and_channels_are_told_apart_by_the_axes_of_the_file(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], axes: str
) -> None:
    pixels = positions(*shape)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == axes
    np.testing.assert_array_equal(image.data.ravel(), pixels.ravel())


def test_channels_come_first_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    zcyx = positions(5, 2, 16, 12)
    metadata = {"axes": "ZCYX"}
    tifffile.imwrite(tmp_path / "a.tif", zcyx, imagej=True, metadata=metadata)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "czyx"
    np.testing.assert_array_equal(image.data, zcyx.swapaxes(0, 1).astype(np.float32))


def test_an_unnamed_last_axis_of_few_is_the_channels(tmp_path: Path) -> None:
    yxc = positions(16, 12, 2, dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", yxc)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, np.moveaxis(yxc, -1, 0))


def test_sixteen_bits_of_a_png_survive(tmp_path: Path) -> None:
    pixels = positions(256, 256)
    iio.imwrite(tmp_path / "a.png", pixels)
    image = read_image(tmp_path / "a.png")
    assert image.data.max() == 65535
    assert image.source_dtype == "uint16"
    np.testing.assert_array_equal(image.data[0], pixels)


def test_a_16_bit_colour_png_is_refused_rather_than_cut_to_8_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(positions(8, 8, 3)))
    assert "16 bits" in message_of(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_colour_image_of_equal_channels_is_grey(tmp_path: Path, suffix: str, alpha: bool) -> None:
    grey = noise(16, 12, dtype=np.uint8)
    channels = [grey] * 3 + [np.full_like(grey, 255)] * alpha
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, np.stack(channels, axis=-1), photometric="rgb")
    else:
        iio.imwrite(path, np.stack(channels, axis=-1))
    image = read_image(path)
    expect_image(image, axes="yx", channels=1)
    np.testing.assert_array_equal(image.data[0], grey)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_colour_image_for_a_one_channel_network_is_refused_with_a_way_out(
    tmp_path: Path, suffix: str
) -> None:
    iio.imwrite(tmp_path / f"a{suffix}", noise(16, 12, 3, dtype=np.uint8))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.data.shape == (3, 16, 12)
    with pytest.raises(ImageError, match=r"3 channel.*expected 1.*--channel 0"):
        expect_image(image, axes="yx", channels=1)


def test_one_channel_can_be_taken_out_of_a_colour_image(tmp_path: Path) -> None:
    pixels = noise(16, 12, 3, dtype=np.uint8)
    iio.imwrite(tmp_path / "a.png", pixels)
    image = read_image(tmp_path / "a.png", channel=1)
    expect_image(image, axes="yx", channels=1)
    np.testing.assert_array_equal(image.data[0], pixels[..., 1])


@pytest.mark.parametrize("channel", [-1, 3])
def test_a_channel_that_is_not_there_is_refused(tmp_path: Path, channel: int) -> None:
    iio.imwrite(tmp_path / "a.png", noise(16, 12, 3, dtype=np.uint8))
    assert "expected 0 to 2" in message_of(tmp_path / "a.png", channel=channel)


def test_a_stack_for_a_2d_network_is_refused_and_the_reverse(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", positions(5, 64, 48))
    tifffile.imwrite(tmp_path / "flat.tif", positions(64, 48))
    with pytest.raises(ImageError, match=r"3D stack.*expected a 2D image"):
        expect_image(read_image(tmp_path / "stack.tif"), axes="yx", channels=1)
    with pytest.raises(ImageError, match=r"2D image.*expected a 3D stack"):
        expect_image(read_image(tmp_path / "flat.tif"), axes="zyx", channels=1)
    expect_image(read_image(tmp_path / "stack.tif"), axes="zyx", channels=1)


def test_too_few_channels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", positions(64, 48))
    with pytest.raises(ImageError, match=r"1 channel.*expected 2"):
        expect_image(read_image(tmp_path / "a.tif"), axes="yx", channels=2)


def test_a_missing_file_is_named_with_its_like_named_neighbours(tmp_path: Path) -> None:
    (tmp_path / "nuclei_01.tif").touch()
    message = message_of(tmp_path / "nuclei_1.tif")
    assert "does not exist" in message
    assert "did you mean nuclei_01.tif" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'x'}" in message_of(tmp_path / "x" / "a.tif")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    assert "is a folder" in message_of(tmp_path)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.czi").touch()
    assert ".tif .tiff .png" in message_of(tmp_path / "a.czi")


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("plain.tif", {}),
    ("pages.tif", {"metadata": None}),
    ("packed.tif", {"compression": "zlib"}),
    ("imagej.tif", {"imagej": True}),
    ("ome.tif", {"ome": True}),
    ("big.tif", {"bigtiff": True, "metadata": None}),
]


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_a_truncated_tiff_is_refused_and_nothing_is_logged(
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    part: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """tifffile would read 3 of 5 pages, log it, and go on."""
    tifffile.imwrite(tmp_path / name, noise(5, 64, 48), **options)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    with caplog.at_level(logging.WARNING):
        assert "cannot be read" in message_of(tmp_path / name)
    assert not caplog.records


def test_a_tiff_that_lost_only_the_names_of_its_axes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(5, 64, 48), ome=True, metadata={"axes": "CYX"})
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-400])
    assert "cannot be read" in message_of(tmp_path / "a.tif")


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"a{suffix}"
    iio.imwrite(path, noise(64, 48, dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert "cannot be read" in message_of(path)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_another_format_under_an_image_suffix_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("hello, this is a table of numbers\n1,2,3")
    assert "cannot be read" in message_of(tmp_path / f"a{suffix}")


def test_pixels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    pixels = np.ones((8, 8), np.float32)
    pixels[0, :3], pixels[1, 0], pixels[1, 1] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert "3 NaN and 2 infinite of 64 pixels" in message_of(tmp_path / "a.tif")


def test_doubles_beyond_float32_are_refused_as_infinite(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 1e300))
    assert "64 pixels" in message_of(tmp_path / "a.tif")


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.complex64))
    assert "complex64" in message_of(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore:.*writing zero-size array")
def test_an_image_without_pixels_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 64), np.uint8), metadata=None)
    assert "has no pixels" in message_of(tmp_path / "a.tif")


def test_a_time_series_is_refused_with_its_length(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", positions(6, 16, 12), imagej=True, metadata={"axes": "TYX"}
    )
    assert "6 frames" in message_of(tmp_path / "a.tif")


def test_several_images_in_one_file_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(positions(16, 12))
        writer.write(positions(8, 8))
    assert "2 separate images" in message_of(tmp_path / "a.tif")


def test_axes_that_nobody_named_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", positions(6, 7, 16, 12))
    assert "expected y, x" in message_of(tmp_path / "a.tif")


def test_a_palette_picture_is_read_as_its_colours(tmp_path: Path) -> None:
    picture = Pillow.fromarray(noise(16, 12, 3, dtype=np.uint8)).quantize(8)
    picture.save(tmp_path / "a.png")
    expected = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").data, expected)
