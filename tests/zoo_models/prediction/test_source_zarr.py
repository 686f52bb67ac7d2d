"""Zarr v2 and v3, OME-Zarr 0.4 and 0.5, here and behind URLs: the finest resolution in parts.

The metadata are typed from the specification's text (https://ngff.openmicroscopy.org), not made by
a library, so that a misreading of ours is not confirmed by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.storage import FsspecStore

from zoo_models.errors import ImageError, InputError
from zoo_models.geometry import Box
from zoo_models.prediction import source_zarr
from zoo_models.prediction.source import Place, open_source

Array = NDArray[Any]

AXES = [
    {"name": "t", "type": "time", "unit": "millisecond"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
SCALES = ([1.0, 1.0, 0.5, 360.0, 0.36], [1.0, 1.0, 0.5, 720.0, 0.72])


def positions(*shape: int) -> Array:
    return np.arange(np.prod(shape)).reshape(shape).astype(np.int32)


def multiscale(version: str) -> dict[str, Any]:
    """The attributes of a multiscale group, as the text of the version has them."""
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level, scale in enumerate(SCALES)
    ]
    whole = [{"type": "scale", "scale": [0.1, 1.0, 2.0, 1.0, 1.0]}]
    image: dict[str, Any] = {
        "name": "example",
        "axes": AXES,
        "datasets": datasets,
        "coordinateTransformations": whole,
    }
    if version == "0.4":
        return {"multiscales": [image | {"version": "0.4"}]}
    return {"ome": {"version": "0.5", "multiscales": [image]}}


def write_ome(store: Any, tczyx: Array, version: str = "0.5", **options: Any) -> None:
    """Two resolutions of an image, in small chunks."""
    group = zarr.open_group(store, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.attrs.update(multiscale(version))
    chunks = (1, 1, 2, 16, 16)
    if version == "0.4":
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}, **options}
    for name, level in (("0", tczyx), ("1", tczyx[..., ::2, ::2])):
        group.create_array(name, data=level, chunks=chunks, **options)


files = count()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_finest_resolution_is_read_with_its_axes_and_voxel_size(
    version: str, tmp_path: Path
) -> None:
    tczyx = positions(2, 3, 4, 40, 30)
    write_ome(tmp_path / "a.zarr", tczyx, version)
    with open_source(Place(str(tmp_path / "a.zarr"), channel=1), ndim=3) as source:
        assert (source.axes, source.shape, source.stack) == ("zyx", (4, 40, 30), (("t", 2),))
        assert source.voxel_size_um == pytest.approx((1.0, 0.36, 0.36))
        assert source.chunk == (2, 16, 16)
        found = source.read(Box((1, 3, 5), (4, 37, 28)), (1,))
        np.testing.assert_array_equal(found, tczyx[1, 1:2, 1:4, 3:37, 5:28])
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=2) as source:
        assert (source.stack, source.channels) == ((("t", 2), ("z", 4)), 3)
        assert source.voxel_size_um == pytest.approx((0.36, 0.36))
        np.testing.assert_array_equal(
            source.read(Box((0, 0), (40, 30)), (0, 3)), tczyx[0, :, 3].astype(np.float32)
        )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_another_resolution_can_be_named(version: str, tmp_path: Path) -> None:
    tczyx = positions(1, 1, 4, 40, 30)
    write_ome(tmp_path / "a.zarr", tczyx, version)
    with open_source(Place(str(tmp_path / "a.zarr/1")), ndim=3) as source:
        assert source.shape == (4, 20, 15)
        assert source.voxel_size_um == pytest.approx((1.0, 0.72, 0.72))
        assert (source.read(Box((2, 3, 4), (3, 4, 5))) == tczyx[0, 0, 2, 6, 8]).all()


def test_an_image_inside_a_larger_store_is_named_by_its_path(tmp_path: Path) -> None:
    """bioformats2raw puts images into 0, 1, ... of a store whose root is none."""
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["bioformats2raw.layout"] = 3
    write_ome(tmp_path / "a.zarr" / "0", positions(1, 1, 4, 40, 30))
    with pytest.raises(ImageError, match=r"a.zarr/: is no array, found 0 inside: name an array"):
        open_source(Place(str(tmp_path / "a.zarr")), ndim=3)
    with open_source(Place(str(tmp_path / "a.zarr/0")), ndim=3) as source:
        assert source.shape == (4, 40, 30)


@pytest.mark.parametrize("change", ["no unit", "pixels", "no scale", "short scale"])
def test_a_voxel_size_that_is_not_told_is_unknown(change: str, tmp_path: Path) -> None:
    write_ome(tmp_path / "a.zarr", positions(1, 1, 4, 40, 30))
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = json.loads(json.dumps(multiscale("0.5")))["ome"]
    image = ome["multiscales"][0]
    if change == "no unit":
        del image["axes"][3]["unit"]
    elif change == "pixels":
        image["axes"][3]["unit"] = "pixel"
    elif change == "no scale":
        del image["datasets"][0]["coordinateTransformations"]
        del image["coordinateTransformations"]
    else:
        image["datasets"][0]["coordinateTransformations"][0]["scale"] = [1.0]
    group.attrs["ome"] = ome
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=3) as source:
        assert source.voxel_size_um is None
        assert source.shape == (4, 40, 30)


def test_axes_of_any_name_are_known_by_their_type(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.zarr", positions(2, 3, 4, 40, 30))
    ome = json.loads(json.dumps(multiscale("0.5")))["ome"]
    for axis, name in zip(
        ome["multiscales"][0]["axes"], ["time", "dye", "Z", "Y", "X"], strict=True
    ):
        axis["name"] = name
    zarr.open_group(tmp_path / "a.zarr").attrs["ome"] = ome
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=3) as source:
        assert (source.channels, source.stack) == (3, (("t", 2),))
    ome["multiscales"][0]["axes"][2]["name"] = "depth"
    zarr.open_group(tmp_path / "a.zarr").attrs["ome"] = ome
    with pytest.raises(ImageError, match=r"the axes tc\?yx.*--axes"):
        open_source(Place(str(tmp_path / "a.zarr")), ndim=3)
    with open_source(Place(str(tmp_path / "a.zarr"), axes="tczyx"), ndim=3) as source:
        assert source.shape == (4, 40, 30)


def test_a_resolution_that_is_listed_but_not_there_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs.update(multiscale("0.5"))
    with pytest.raises(ImageError, match="lists an array 0 that is not there"):
        open_source(Place(str(tmp_path / "a.zarr")), ndim=3)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_may_name_its_axes(zarr_format: Any, tmp_path: Path) -> None:
    stored = positions(3, 40, 30)
    names: dict[str, Any] = {"dimension_names": ("c", "y", "x")}
    if zarr_format == 2:  # as xarray does
        names = {"attributes": {"_ARRAY_DIMENSIONS": ["c", "y", "x"]}}
    zarr.create_array(tmp_path / "a.zarr", data=stored, zarr_format=zarr_format, **names)
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=2) as source:
        assert source.channels == 3
        np.testing.assert_array_equal(source.read(Box((0, 0), (40, 30))), stored)


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"zarr_format": 3}, {"shards": (24, 20)}])
def test_a_box_holds_the_pixels_at_its_place(
    options: dict[str, Any], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = positions(50, 37)
    path = tmp_path_factory.getbasetemp() / f"box{next(files)}.zarr"
    zarr.create_array(path, data=image, chunks=(12, 10), **options)
    ends = [data.draw(st.tuples(st.integers(0, n), st.integers(0, n))) for n in image.shape]
    box = Box(tuple(map(min, ends)), tuple(map(max, ends)))
    with open_source(Place(str(path)), ndim=2) as source:
        assert source.chunk == (12, 10)
        np.testing.assert_array_equal(source.read(box)[0], image[box.slices])


def test_a_store_is_read_through_urls(tmp_path: Path) -> None:
    tczyx = positions(1, 2, 4, 40, 30)
    write_ome(tmp_path / "a.zarr", tczyx)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "a.zarr"), "/test-urls/a.zarr", recursive=True)
    archive = fsspec.filesystem("zip", fo=str(tmp_path / "b.zip"), mode="w")
    for file in (tmp_path / "a.zarr").rglob("*"):
        if file.is_file():
            archive.pipe_file(
                f"in/a.zarr/{file.relative_to(tmp_path / 'a.zarr')}", file.read_bytes()
            )
    archive.close()
    urls = ["memory://test-urls/a.zarr", f"file://{tmp_path}/a.zarr", "memory://test-urls/a.zarr/0"]
    urls += [f"zip://in/a.zarr::{tmp_path}/b.zip", f"zip://in/a.zarr/0::file://{tmp_path}/b.zip"]
    fingerprints = set()
    for url in urls:
        with open_source(Place(url), ndim=3) as source:
            found = source.read(Box((1, 3, 5), (4, 37, 28)))
            np.testing.assert_array_equal(found, tczyx[0, :, 1:4, 3:37, 5:28])
            assert source.voxel_size_um == pytest.approx((1.0, 0.36, 0.36))
            assert source.fingerprint() == source.fingerprint()
            fingerprints.add(source.fingerprint())
    assert len(fingerprints) == len(urls)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nothing/a.zarr", "cannot be read"),
        ("https://127.0.0.1:9/a.zarr", "Cannot connect"),
        ("nonsense://a.zarr", "Protocol not known: nonsense"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_source(Place(url), ndim=2)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)


def test_a_library_that_a_url_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://bucket/a.zarr: .*s3fs"):
        open_source(Place("s3://bucket/a.zarr"), ndim=2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("change", ["touch", "shorter", "remove", "metadata"])
def test_the_fingerprint_notices_a_changed_chunk_or_document(
    change: str, version: str, tmp_path: Path
) -> None:
    write_ome(tmp_path / "a.zarr", positions(1, 1, 4, 40, 30), version)
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=3) as source:
        before = source.fingerprint()
        last = max(path for path in (tmp_path / "a.zarr" / "0").rglob("[0-9]") if path.is_file())
        if change == "touch":
            now = time.time_ns() + 10**9
            os.utime(last, ns=(now, now))
        elif change == "shorter":
            last.write_bytes(last.read_bytes()[:-1])
        elif change == "remove":
            last.unlink()
        else:
            document = tmp_path / "a.zarr" / ("zarr.json" if version == "0.5" else ".zattrs")
            document.write_text(document.read_text().replace("360.0", "361.0"))
        assert source.fingerprint() != before


def test_the_fingerprint_looks_at_shards_where_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_zarr, "LOCAL_CHUNKS", 4)
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, data=positions(40, 40), chunks=(10, 10), shards=(20, 20))
    with open_source(Place(str(path)), ndim=2) as source:
        before = source.fingerprint()
        array[39, 39] = 7
        assert source.fingerprint() != before


def test_the_fingerprint_of_a_remote_array_notices_a_changed_chunk() -> None:
    store = FsspecStore.from_url("memory://test-print/a.zarr")
    array = zarr.create_array(store, data=positions(40, 30), chunks=(16, 16), overwrite=True)
    with open_source(Place("memory://test-print/a.zarr"), ndim=2) as source:
        before = source.fingerprint()
        assert source.fingerprint() == before
        array[39, 29] = 7
        assert source.fingerprint() != before


def test_the_fingerprint_looks_at_a_bounded_number_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_zarr, "LOCAL_CHUNKS", 10)
    zarr.create_array(tmp_path / "a.zarr", data=positions(100, 100), chunks=(5, 5))
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=2) as source:
        chunks = [line for line in source.array.identity() if "mtime" in line]
    assert len(chunks) == 10


def test_a_damaged_chunk_is_refused_with_its_place(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=positions(32, 32), chunks=(16, 16))
    (tmp_path / "a.zarr" / "c" / "1" / "1").write_bytes(b"no chunk")
    with open_source(Place(str(tmp_path / "a.zarr")), ndim=2) as source:
        source.read(Box((0, 0), (16, 32)))
        with pytest.raises(ImageError, match=r"a.zarr: y 16:32, x 0:32 cannot be read"):
            source.read(Box((16, 0), (32, 32)))
