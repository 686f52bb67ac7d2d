"""Images are read box by box: which pixels come out, and what is refused before any are read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from zoo_models.errors import GeometryError, ImageError
from zoo_models.geometry import Box
from zoo_models.prediction.images import read_image
from zoo_models.prediction.source import Place, Source, expect_source, open_source

Array = NDArray[Any]


def positions(*shape: int, dtype: Any = np.uint16) -> Array:
    """An array of which every value is its own place."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def whole(source: Source, at: tuple[int, ...] = ()) -> Array:
    return source.read(Box.of_shape(source.shape), at)


def hdf5(folder: Path, array: Array, **attributes: Any) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["inside/raw"] = array
        file["inside/raw"].attrs.update(attributes)
    return f"{folder / 'a.h5'}:/inside/raw"


def plain_zarr(folder: Path, array: Array) -> str:
    zarr.create_array(folder / "a.zarr", data=array, chunks=tuple(-(-n // 2) for n in array.shape))
    return str(folder / "a.zarr")


def tiled_tiff(folder: Path, array: Array) -> str:
    tifffile.imwrite(folder / "a.tif", array, tile=(16, 16), compression="zlib", metadata=None)
    return str(folder / "a.tif")


def png(folder: Path, array: Array) -> str:
    iio.imwrite(folder / "a.png", array)
    return str(folder / "a.png")


WRITERS: tuple[Callable[..., str], ...] = (hdf5, plain_zarr, tiled_tiff, png)


def message_of(place: Place, *, ndim: int = 2) -> str:
    """The error of opening `place`, which must be one line that names it."""
    with pytest.raises(ImageError) as caught:
        open_source(place, ndim=ndim)
    message = str(caught.value)
    assert place.path.partition(":/")[0] in message
    assert "\n" not in message
    return message


files = count()


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("write", WRITERS)
def test_a_box_holds_the_pixels_at_its_place(
    write: Callable[..., str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 50), st.integers(5, 50)))
    image = positions(*shape)
    ranges = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    box = Box(tuple(a for a, _ in ranges), tuple(b for _, b in ranges))
    folder = tmp_path_factory.getbasetemp() / f"box{next(files)}"
    folder.mkdir()
    with open_source(Place(write(folder, image)), ndim=2) as source:
        found = source.read(box)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, image[box.slices][None])


@settings(max_examples=40)
@given(axes=st.permutations("tczyx").map("".join), data=st.data())
def test_axes_may_be_stored_in_any_order(
    axes: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A 2D network walks over t and z, a 3D network over t; channels come first."""
    size = {"t": 2, "c": 3, "z": 4, "y": 7, "x": 6}
    tczyx = positions(*size.values())
    folder = tmp_path_factory.getbasetemp() / f"order{next(files)}"
    folder.mkdir()
    stored = tczyx.transpose(["tczyx".index(a) for a in axes])
    place = Place(plain_zarr(folder, stored), axes=axes)
    t, z = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 3)))
    with open_source(place, ndim=2) as flat:
        assert (flat.axes, flat.shape, flat.channels) == ("yx", (7, 6), 3)
        assert flat.stack == (("t", 2), ("z", 4))
        np.testing.assert_array_equal(whole(flat, (t, z)), tczyx[t, :, z])
    with open_source(place, ndim=3) as deep:
        assert (deep.axes, deep.shape, deep.channels) == ("zyx", (4, 7, 6), 3)
        assert deep.stack == (("t", 2),)
        np.testing.assert_array_equal(whole(deep, (t,)), tczyx[t])


@pytest.mark.parametrize("write", WRITERS[:3])
def test_unnamed_axes_are_those_of_the_network_where_there_are_as_many(
    write: Callable[..., str], tmp_path: Path
) -> None:
    stack = positions(5, 40, 30)
    with open_source(Place(write(tmp_path, stack)), ndim=3) as source:
        assert (source.axes, source.shape, source.stack) == ("zyx", (5, 40, 30), ())
        np.testing.assert_array_equal(whole(source)[0], stack)


@pytest.mark.parametrize("shape", [(1, 8, 7), (1, 8, 1, 7), (8, 7, 1)])
def test_axes_of_length_1_mean_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    with open_source(Place(hdf5(tmp_path, positions(*shape))), ndim=2) as source:
        assert (source.shape, source.stack, source.channels) == ((8, 7), (), 1)
        np.testing.assert_array_equal(whole(source)[0], positions(8, 7))


@pytest.mark.parametrize("axes", [None, "zy", "zyxc", "zyy", "zya", "tcz"])
def test_axes_that_are_not_told_are_asked_for(axes: str | None, tmp_path: Path) -> None:
    place = Place(hdf5(tmp_path, positions(5, 8, 7)), axes=axes)
    message = message_of(place)
    assert "(5, 8, 7)" in message
    assert "--axes" in message
    assert axes is None or f"the axes {axes}" in message


@pytest.mark.parametrize("write", WRITERS[:3])
def test_axes_that_the_user_names_overrule_the_file(
    write: Callable[..., str], tmp_path: Path
) -> None:
    stored = positions(5, 40, 30)
    with open_source(Place(write(tmp_path, stored), axes="CYX"), ndim=2) as source:
        assert (source.channels, source.stack) == (5, ())
        np.testing.assert_array_equal(whole(source), stored)


def test_a_region_is_the_whole_image_for_the_network(tmp_path: Path) -> None:
    stack = positions(5, 8, 7)
    region = ((1, 4), (2, 8), (0, 5))
    with open_source(Place(hdf5(tmp_path, stack), region=region), ndim=3) as source:
        assert source.shape == (3, 6, 5)
        np.testing.assert_array_equal(whole(source)[0], stack[1:4, 2:8, :5])
        found = source.read(Box((1, 2, 3), (3, 4, 5)))
        np.testing.assert_array_equal(found[0], stack[2:4, 4:6, 3:5])


@pytest.mark.parametrize(
    "region", [((0, 9), (0, 7)), ((-1, 4), (0, 7)), ((3, 3), (0, 7)), ((0, 8),)]
)
def test_a_region_that_is_empty_or_outside_is_refused(region: Any, tmp_path: Path) -> None:
    place = Place(hdf5(tmp_path, positions(8, 7)), region=region)
    message = message_of(place)
    assert "(8, 7)" in message
    assert "inside the image" in message


def test_one_channel_is_read_alone(tmp_path: Path) -> None:
    stored = positions(3, 8, 7)
    with open_source(Place(hdf5(tmp_path, stored), axes="cyx", channel=2), ndim=2) as source:
        assert source.channels == 1
        np.testing.assert_array_equal(whole(source), stored[2:])


@pytest.mark.parametrize("channel", [-1, 3])
def test_a_channel_that_is_not_there_is_refused(channel: int, tmp_path: Path) -> None:
    place = Place(hdf5(tmp_path, positions(3, 8, 7)), axes="cyx", channel=channel)
    assert f"no channel {channel}: expected 0 to 2" in message_of(place)


@pytest.mark.parametrize(
    ("box", "at"),
    [
        (Box((0, 0), (9, 7)), (0,)),
        (Box((-1, 0), (8, 7)), (0,)),
        (Box((0, 0), (8, 7)), ()),
        (Box((0, 0), (8, 7)), (5,)),
        (Box((0, 0), (8, 7)), (-1,)),
    ],
)
def test_a_box_beyond_the_image_is_refused(box: Box, at: tuple[int, ...], tmp_path: Path) -> None:
    place = Place(hdf5(tmp_path, positions(5, 8, 7)), axes="zyx")
    with open_source(place, ndim=2) as source, pytest.raises(GeometryError, match="no box"):
        source.read(box, at)


def test_pixels_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    stack = np.ones((2, 8, 7), np.float64)
    stack[1, 5, 3:6] = np.nan, np.inf, 1e300
    place = Place(hdf5(tmp_path, stack), axes="zyx", region=((4, 8), (0, 7)))
    with open_source(place, ndim=2) as source:
        assert whole(source, (0,)).max() == 1
        with pytest.raises(ImageError) as caught:
            source.read(Box((1, 2), (3, 7)), (1,))
    assert "z 1, y 5:7, x 2:7 has 1 NaN and 2 infinite of 10 pixels" in str(caught.value)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    assert "complex64" in message_of(Place(hdf5(tmp_path, np.ones((8, 7), np.complex64))))


def test_an_image_without_pixels_is_refused(tmp_path: Path) -> None:
    assert "has no pixels" in message_of(Place(hdf5(tmp_path, np.ones((0, 7), np.uint8))))


@pytest.mark.parametrize(
    "name", ["b.tif", "b.png", "b.h5:/inside/raw", "b.zarr", "no/b.tif", "a.czi"]
)
def test_what_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / f"b_1{Path(name.partition(':')[0]).suffix}").touch()
    (tmp_path / "a.czi").touch()
    message = message_of(Place(str(tmp_path / name)))
    if "czi" in name:
        assert "the suffix '.czi'" in message
    elif "no/" in name:
        assert "there is no folder" in message
    else:
        assert "does not exist" in message
        assert "did you mean b_1" in message


def test_pictures_are_read_as_read_image_does(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 12, 4)).astype(np.uint8)
    Pillow.fromarray(noise[..., :3]).save(tmp_path / "colour.png")
    Pillow.fromarray(noise[..., :3]).save(tmp_path / "colour.jpg")
    Pillow.fromarray(noise[..., :3]).quantize(8).save(tmp_path / "palette.png")
    Pillow.fromarray(noise).save(tmp_path / "alpha.png")
    Pillow.fromarray(positions(16, 12)).save(tmp_path / "deep.png")
    for path in tmp_path.iterdir():
        with open_source(Place(str(path)), ndim=2) as source:
            np.testing.assert_array_equal(whole(source), read_image(path).data)
            assert source.dtype == read_image(path).source_dtype


@pytest.mark.parametrize("alpha", [None, 255, "varies"])
def test_a_colour_image_of_equal_channels_is_grey(alpha: Any, tmp_path: Path) -> None:
    """Also where they differ only far from the origin, and in the alpha channel."""
    grey = np.random.default_rng(0).integers(0, 255, (1100, 700)).astype(np.uint8)
    layers = [grey] * 3
    if alpha is not None:
        layers.append(np.full_like(grey, 255 if alpha == "varies" else alpha))
    colours = np.stack(layers, axis=-1)
    if alpha == "varies":
        colours[1090, 690, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", tile=(64, 64))
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        assert source.channels == (4 if alpha == "varies" else 1)
        assert source.place.channel == (None if alpha == "varies" else 0)
        np.testing.assert_array_equal(whole(source), read_image(tmp_path / "a.tif").data)
    colours[1080, 1, 0] ^= 1
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", tile=(64, 64))
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        assert source.channels == colours.shape[2]


def test_a_network_gets_the_axes_and_channels_it_takes(tmp_path: Path) -> None:
    with open_source(Place(hdf5(tmp_path, positions(8, 7))), ndim=3) as flat:
        with pytest.raises(ImageError, match=r"2D image.*\(8, 7\).*expected a 3D stack"):
            expect_source(flat, axes="zyx", channels=1)
        expect_source(flat, axes="yx", channels=1)
        with pytest.raises(ImageError, match=r"1 channel.*expected 2"):
            expect_source(flat, axes="yx", channels=2)
    with (
        open_source(Place(hdf5(tmp_path, positions(3, 8, 7)), axes="cyx"), ndim=2) as colour,
        pytest.raises(ImageError, match=r"3 channel.*expected 1.*--channel 0"),
    ):
        expect_source(colour, axes="yx", channels=1)


def test_hdf5_tells_axes_and_voxel_size_where_they_are_written(tmp_path: Path) -> None:
    stored = positions(4, 8, 7, 3)
    tags = json.dumps({"axes": [{"key": key} for key in "zyxc"]})  # as ilastik writes them
    path = hdf5(tmp_path, stored, axistags=tags, element_size_um=(2.0, 0.5, 0.25))
    with open_source(Place(path), ndim=3) as source:
        assert (source.axes, source.channels) == ("zyx", 3)
        assert source.voxel_size_um == (2.0, 0.5, 0.25)
        np.testing.assert_array_equal(whole(source), np.moveaxis(stored, -1, 0))
    with h5py.File(tmp_path / "a.h5", "w") as file:  # as h5py names dimensions
        file["inside/raw"] = stored[..., 0]
        for dimension, name in zip(file["inside/raw"].dims, "tyx", strict=True):
            dimension.label = name
    with open_source(Place(path), ndim=2) as source:
        assert (source.stack, source.voxel_size_um) == ((("t", 4),), None)


def test_the_chunk_is_that_of_the_storage(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=positions(3, 40, 30), chunks=(3, 8, 16))
    place = Place(f"{tmp_path / 'a.h5'}:raw", axes="cyx")
    with open_source(place, ndim=2) as source:
        assert source.chunk == (8, 16)


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    image = positions(300, 300)
    boxes = [Box((y, x), (y + 37, x + 41)) for y in range(0, 260, 20) for x in range(0, 250, 20)]
    for write in (hdf5, plain_zarr, tiled_tiff, png):
        place = Place(write(tmp_path, image))
        with open_source(place, ndim=2) as source, ThreadPoolExecutor(8) as pool:
            found = list(pool.map(source.read, boxes))
        for box, pixels in zip(boxes, found, strict=True):
            np.testing.assert_array_equal(pixels[0], image[box.slices])


def test_a_place_goes_to_another_process_and_through_json(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "a.tif"), axes="tyx", channel=0, region=((1, 5), (2, 6)))
    assert pickle.loads(pickle.dumps(place)) == place
    assert Place(**json.loads(json.dumps(asdict(place)))) == place


@pytest.mark.parametrize("write", WRITERS)
def test_the_fingerprint_changes_with_the_image_and_with_the_choices(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, positions(40, 30))

    def fingerprint(**choices: Any) -> str:
        with open_source(Place(choices.pop("path", path), **choices), ndim=2) as source:
            return source.fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    monkeypatch.chdir(tmp_path)
    assert fingerprint(path=str(Path(path).relative_to(tmp_path))) == first
    choices: list[dict[str, Any]] = [{"axes": "xy"}, {"channel": 0}, {"region": ((0, 40), (0, 29))}]
    assert len({first, *(fingerprint(**choice) for choice in choices)}) == 4
    for entry in sorted(tmp_path.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    write(tmp_path, positions(40, 30))
    assert fingerprint() != first


@pytest.mark.parametrize("part", [0, 0.5, 0.9])
@pytest.mark.parametrize("write", [hdf5, tiled_tiff, png])
def test_a_truncated_file_is_refused(
    write: Callable[..., str], part: float, tmp_path: Path
) -> None:
    path = write(tmp_path, np.random.default_rng(0).integers(0, 9999, (64, 48)).astype(np.uint16))
    file = Path(path.partition(":")[0])
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    assert "cannot be read" in message_of(Place(path))
