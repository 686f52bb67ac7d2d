"""Every way in which a TIFF keeps its pixels is read in parts, and gives what read_image gives."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from zoo_models.errors import ImageError
from zoo_models.geometry import Box
from zoo_models.prediction import tiff_planes
from zoo_models.prediction.images import read_image
from zoo_models.prediction.source import Place, open_source
from zoo_models.prediction.source_tiff import open_tiff

Array = NDArray[Any]
TILES: dict[str, Any] = {"tile": (16, 32)}


def positions(*shape: int, dtype: Any = np.uint16) -> Array:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    # name: shape, how it is written, how it is read
    "one piece": ((65, 70), {}, "_Mapped"),
    "BigTIFF": ((65, 70), {"bigtiff": True}, "_Mapped"),
    "other bytes first": ((65, 70), {"byteorder": ">"}, "_Mapped"),
    "pages": ((5, 65, 70), {"metadata": None}, "_Mapped"),
    "ImageJ": ((5, 2, 16, 12), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "_Mapped"),
    "OME": ((2, 3, 16, 12), {"ome": True, "metadata": {"axes": "CZYX"}}, "_Mapped"),
    "RGB": ((65, 70, 3), {"photometric": "rgb"}, "_Mapped"),
    "tiles": ((65, 70), TILES, "_Segments"),
    "packed tiles": ((65, 70), {**TILES, "compression": "lzw", "predictor": True}, "_Segments"),
    "BigTIFF tiles": ((65, 70), {**TILES, "bigtiff": True, "byteorder": ">"}, "_Segments"),
    "tiled stack": ((5, 65, 70), {**TILES, "compression": "zlib"}, "_Segments"),
    "OME tiles": (
        (2, 3, 65, 70),
        {**TILES, "ome": True, "metadata": {"axes": "ZCYX"}},
        "_Segments",
    ),
    "RGB tiles": ((65, 70, 3), {**TILES, "photometric": "rgb"}, "_Segments"),
    "planar": ((3, 65, 70), {**TILES, "photometric": "rgb", "planarconfig": 2}, "_Segments"),
    "strips": ((65, 70), {"rowsperstrip": 7, "compression": "lzw"}, "_Segments"),
    "RGB strips": ((65, 70, 3), {"rowsperstrip": 7, "compression": "zlib"}, "_Segments"),
    "one bit": ((65, 70), {"dtype": bool}, "_Segments"),
    "one strip": ((65, 70), {"compression": "zlib"}, "_DecodedOnce"),
    "strip each": ((5, 65, 70), {"compression": "zlib"}, "_DecodedOnce"),
    "volume": ((5, 33, 17), {"volumetric": True, "tile": (16, 16, 16)}, "_DecodedOnce"),
}

files = count()


@settings(max_examples=12)
@given(data=st.data())
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_box_of_any_layout_is_what_read_image_gives(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape, options, way = LAYOUTS[name]
    path = tmp_path_factory.getbasetemp() / f"layout{next(files)}.tif"
    options = dict(options)
    pixels = positions(*shape, dtype=options.pop("dtype", np.uint16))
    tifffile.imwrite(path, pixels, **options)
    expected = read_image(path).data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff_planes, "HIGH_STRIP_BYTES", 5000)  # so that small strips count as high
        patch.setattr(tiff_planes, "HIGH_STRIP_ROWS", 16)
        patch.setattr(tiff_planes, "_MAPPED_ROWS", 8)
        with open_source(Place(str(path)), ndim=expected.ndim - 1) as source:
            assert type(source.array.read.__self__).__name__ == way  # type: ignore[attr-defined]
            assert (source.channels, *source.shape) == expected.shape
            for _ in range(3):
                ends = [data.draw(st.tuples(*[st.integers(0, n)] * 2)) for n in source.shape]
                box = Box(tuple(map(min, ends)), tuple(map(max, ends)))
                found = source.read(box)
                np.testing.assert_array_equal(found, expected[(slice(None), *box.slices)])


def test_one_plane_is_read_out_of_a_stack(tmp_path: Path) -> None:
    stack = positions(3, 2, 4, 16, 12)
    for order, ome in (("TCZYX", True), ("TZCYX", False)):
        stored = stack.transpose(["TCZYX".index(axis) for axis in order])
        tifffile.imwrite(
            tmp_path / "a.tif", stored, metadata={"axes": order}, ome=ome, imagej=not ome
        )
        with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
            assert source.stack == (("t", 3), ("z", 4))
            found = source.read(Box((1, 2), (9, 12)), (2, 1))
            np.testing.assert_array_equal(found, stack[2, :, 1, 1:9, 2:12])


def test_a_pyramid_is_read_at_its_full_resolution(tmp_path: Path) -> None:
    pixels = positions(128, 96)
    metadata = {"axes": "YX", "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"}
    metadata |= {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", bigtiff=True) as writer:
        writer.write(pixels, subifds=2, tile=(16, 16), metadata=metadata)
        for level in (2, 4):
            writer.write(pixels[::level, ::level], subfiletype=1, tile=(16, 16))
    with open_source(Place(str(tmp_path / "a.ome.tif")), ndim=2) as source:
        assert (source.shape, source.chunk) == ((128, 96), (16, 16))
        assert source.voxel_size_um == (0.5, 0.25)
        np.testing.assert_array_equal(source.read(Box((3, 5), (70, 60)))[0], pixels[3:70, 5:60])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_what_pillow_writes_is_read(compression: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (70, 50, 3)).astype(np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
    expected = read_image(tmp_path / "a.tif").data
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        found = source.read(Box((3, 5), (68, 40)))
    np.testing.assert_array_equal(found, expected[:, 3:68, 5:40])


def test_jpeg_tiles_share_their_tables(tmp_path: Path) -> None:
    y, x = np.mgrid[:70, :90]
    smooth = np.stack([y, x, y + x], axis=-1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, **TILES, compression="jpeg", photometric="rgb")
    expected = read_image(tmp_path / "a.tif").data
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        found = source.read(Box((3, 5), (68, 88)))
    np.testing.assert_array_equal(found, expected[:, 3:68, 5:88])


def test_a_tile_that_is_not_stored_is_empty(tmp_path: Path) -> None:
    pixels = positions(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tiff.pages.first.tags[name]
            tag.overwrite((0, 0, *tag.value[2:]))
    pixels[:32] = 0
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        np.testing.assert_array_equal(source.read(Box((9, 9), (60, 60)))[0], pixels[9:60, 9:60])


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="17" SizeY="33" SizeZ="4"
SizeC="1" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_may_lie_in_several_files(compression: str | None, tmp_path: Path) -> None:
    stack, ids = positions(4, 33, 17), ("urn:uuid:0", "urn:uuid:1")
    planes = "".join(
        f'<TiffData IFD="{z % 2}" FirstZ="{z}" PlaneCount="1">'
        f'<UUID FileName="{z // 2}.ome.tif">{ids[z // 2]}</UUID></TiffData>'
        for z in range(4)
    )
    for number, own in enumerate(ids):
        with tifffile.TiffWriter(tmp_path / f"{number}.ome.tif") as writer:
            for z in range(2):
                text = None if z else OME.format(own=own, planes=planes)
                writer.write(
                    stack[2 * number + z], description=text, metadata=None, compression=compression
                )
    with open_source(Place(str(tmp_path / "0.ome.tif")), ndim=3) as source:
        np.testing.assert_array_equal(
            source.read(Box((1, 3, 5), (4, 9, 9)))[0], stack[1:, 3:9, 5:9]
        )
        before = source.fingerprint()
        (tmp_path / "1.ome.tif").touch()
        assert source.fingerprint() != before
    (tmp_path / "1.ome.tif").unlink()
    with pytest.raises(ImageError, match=r"0.ome.tif: cannot be read.*1.ome.tif"):
        open_source(Place(str(tmp_path / "0.ome.tif")), ndim=3)


FORMATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pages": {"metadata": None},
    "packed": {"compression": "zlib"},
    "tiles": {**TILES},
    "ImageJ": {"imagej": True},
    "OME": {"ome": True},
    "BigTIFF": {"bigtiff": True, "metadata": None},
}


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused_when_it_is_opened(
    name: str, part: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 64, 48)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", noise, **FORMATS[name])
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ImageError) as caught:
        open_source(Place(str(tmp_path / "a.tif")), ndim=3)
    assert f"{tmp_path / 'a.tif'}: cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_a_damaged_tile_is_refused_with_its_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", positions(64, 64), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offset, size = tiff.pages.first.dataoffsets[3], tiff.pages.first.databytecounts[3]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + size] = bytes(size)
    (tmp_path / "a.tif").write_bytes(content)
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        assert source.read(Box((0, 0), (32, 64)))[0, 31, 63] == 31 * 64 + 63
        with pytest.raises(ImageError, match=r"a.tif: y 30:40, x 33:50 cannot be read"):
            source.read(Box((30, 33), (40, 50)))


def test_several_images_in_one_file_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(positions(16, 12))
        writer.write(positions(8, 8))
    with pytest.raises(ImageError, match="2 separate images"):
        open_source(Place(str(tmp_path / "a.tif")), ndim=2)


def test_an_image_that_must_be_decoded_whole_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_planes, "HIGH_STRIP_BYTES", 100)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    tifffile.imwrite(tmp_path / "a.tif", positions(300, 70), compression="zlib", rowsperstrip=300)
    with open_source(Place(str(tmp_path / "a.tif")), ndim=2) as source:
        assert not list((tmp_path / "tmp").iterdir())  # not before a pixel is asked for
        source.read(Box((3, 5), (7, 9)))
        assert [entry.stat().st_size for entry in (tmp_path / "tmp").glob("*/*")] == [300 * 70 * 2]
    assert not list((tmp_path / "tmp").iterdir())


def test_decoded_tiles_are_kept_for_the_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boxes inside one tile: the second is read although the file is empty by then."""
    pixels = positions(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    array = open_tiff(tmp_path / "a.tif")
    array.read((slice(0, 8), slice(0, 8)))
    (tmp_path / "a.tif").write_bytes(b"")
    np.testing.assert_array_equal(array.read((slice(30, 40), slice(5, 9))), pixels[30:40, 5:9])
    array.close()


MEMORY = """
import resource, sys
from zoo_models.geometry import Box
from zoo_models.prediction.source import Place, open_source
import zoo_models.prediction.source_tiff
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_source(Place(sys.argv[1]), ndim=2) as source:
    values = source.read(Box((4000, 5000), (4256, 5256)))
    assert values[0, 0, 0] == 4000 * 8192 % 65536 + 5000, values
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize("tile", [(256, 256), None])
def test_a_box_takes_the_memory_of_a_box(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    """256 x 256 of a BigTIFF of 8192 x 8192 x 2 bytes = 128 MiB: less than 16 MiB."""
    row = np.arange(8192, dtype=np.uint16)
    pixels = row[:, None] * np.uint16(8192) + row
    tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=True, tile=tile)
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "a.tif")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < 16 * 1024
