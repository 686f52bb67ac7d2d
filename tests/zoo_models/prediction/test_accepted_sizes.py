"""The sizes that a model takes are those of its description, whoever made it."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.packager.conftest import make_checkpoint
from zoo_models.errors import GeometryError, PackageError
from zoo_models.geometry import TileGeometry, ValidUNetAxis
from zoo_models.prediction.accepted_sizes import AcceptedSizes, SizeRange

ranges = st.builds(SizeRange, st.integers(1, 40), st.integers(1, 12))


@given(ranges, st.integers(1, 200))
def test_the_padded_size_is_the_smallest_of_the_declared_ones(sizes: SizeRange, size: int) -> None:
    declared = (sizes.minimum + n * sizes.step for n in itertools.count())
    assert sizes.smallest(size) == next(s for s in declared if s >= size)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 3), st.integers(1, 500))
def test_for_a_package_of_ours_it_is_a_multiple_of_two_periods(
    convolutions: int, levels: int, factor: int, size: int
) -> None:
    network = ValidUNetAxis(kernel=3, convolutions=convolutions, levels=levels, factor=factor)
    axis = TileGeometry.from_network([network, network]).axes[0]
    assert SizeRange(axis.minimum, axis.step).smallest(size) % (2 * factor**levels) == 0


def test_a_model_of_one_size_takes_smaller_images_and_refuses_larger() -> None:
    assert SizeRange(64, 0).smallest(1) == SizeRange(64, 0).smallest(64) == 64
    with pytest.raises(GeometryError, match=r"65 pixels.*64.*one size.*pieces"):
        SizeRange(64, 0).smallest(65)


def test_a_network_of_ours_declares_what_its_geometry_says() -> None:
    geometry = make_checkpoint().geometry
    ours = AcceptedSizes(
        "", "yx", tuple(SizeRange(a.minimum, a.step) for a in geometry.axes), channels=1
    )
    assert ours.smallest((61, 83)) == (64, 88)


DESCRIPTION = """
format_version: {version}
type: model
name: Model of somebody
description: Made for tests.
authors: [{{name: A. Person}}]
cite: [{{text: A paper, doi: 10.1234/abc}}]
license: MIT
documentation: README.md
tags: [test]
timestamp: 2020-01-01T00:00:00
{tensors}
weights:
  torchscript: {{source: w.pt, sha256: '{sha}', pytorch_version: '2.0'}}
"""
OLD = """
inputs: [{{name: raw, axes: {axes}, data_type: float32, shape: {shape}}}]
outputs: [{{name: out, axes: bcyx, data_type: float32, shape: [1, 1, 9, 9]}}]
test_inputs: [in.npy]
test_outputs: [out.npy]
"""
NEW = """
inputs:
- {{id: raw, test_tensor: {{source: in.npy}}, axes: [{axes}]}}
{more}
outputs:
- id: out
  test_tensor: {{source: out.npy}}
  axes: [{{type: batch}}, {{type: space, id: y, size: 9}}, {{type: space, id: x, size: 9}}]
"""
Y, X = "{type: space, id: y, size: {min: 8, step: 4}}", "{type: space, id: x, size: 30}"
C = "{type: channel, channel_names: [r, g]}"
MASK = "- {id: mask, optional: OPTIONAL, test_tensor: {source: m.npy}, axes: [{type: batch}, YX]}"


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """A zip with a description alone: no weights, no tensors, no code."""

    def write(version: str, tensors: str, name: str = "rdf.yaml") -> Path:
        text = DESCRIPTION.format(version=version, tensors=tensors, sha="0" * 64)
        with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
            archive.writestr(name, text)
            archive.writestr("README.md", "# Model of somebody")
        return tmp_path / "model.zip"

    return write


@pytest.mark.parametrize(
    ("axes", "shape", "found"),
    [
        ("bcyx", "{min: [1, 2, 8, 30], step: [0, 0, 4, 0]}", ("yx", [(8, 4), (30, 0)], 2)),
        ("byxc", "[1, 32, 64, 3]", ("yx", [(32, 0), (64, 0)], 3)),
        ("bxyz", "[1, 8, 16, 32]", ("zyx", [(32, 0), (16, 0), (8, 0)], 1)),
    ],
)
def test_models_of_format_0_4_are_read(
    model: Callable[..., Path], axes: str, shape: str, found: tuple[str, list, int]
) -> None:
    accepted = AcceptedSizes.of_package(model("0.4.10", OLD.format(axes=axes, shape=shape)))
    names, sizes, channels = found
    assert accepted == AcceptedSizes(
        "Model of somebody",
        names,  # type: ignore[arg-type]
        tuple(SizeRange(*size) for size in sizes),
        channels,
    )


def of_somebody() -> str:
    more = MASK.replace("OPTIONAL", "true").replace("YX", f"{Y}, {X}")
    return NEW.format(axes=f"{{type: batch}}, {C}, {X}, {Y}", more=more)


@pytest.mark.parametrize("name", ["rdf.yaml", "bioimageio.yaml"])
def test_models_of_format_0_5_are_read_whoever_made_them(
    model: Callable[..., Path], name: str
) -> None:
    accepted = AcceptedSizes.of_package(model("0.5.4", of_somebody(), name))
    assert (accepted.axes, accepted.channels) == ("yx", 2)
    assert accepted.ranges == (SizeRange(8, 4), SizeRange(30, 0))


# bioimageio.spec leaves the files open that it reads from a folder; the interpreter says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["rdf.yaml", "bioimageio.yaml", "model.yaml"])
def test_an_unpacked_model_is_read_as_well(
    model: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    zipped = AcceptedSizes.of_package(model("0.5.4", of_somebody()))
    with zipfile.ZipFile(model("0.5.4", of_somebody(), name)) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert AcceptedSizes.of_package(tmp_path / "unpacked") == zipped
    assert AcceptedSizes.of_package(tmp_path / "unpacked" / name) == zipped


@pytest.mark.parametrize(
    ("axes", "more", "words"),
    [
        (f"{Y}, {X}", MASK.replace("OPTIONAL", "false").replace("YX", f"{Y}, {X}"), "2 images"),
        (f"{{type: time, size: 3}}, {Y}, {X}", "", "axes time, y, x, expected"),
        (f"{Y}", "", "axes y, expected"),
        (
            f"{Y}, {{type: space, id: x, size: {{tensor_id: raw, axis_id: y}}}}",
            "",
            "size of its axis x follows another",
        ),
    ],
)
def test_models_that_padding_cannot_serve_are_refused(
    model: Callable[..., Path], axes: str, more: str, words: str
) -> None:
    source = model("0.5.4", NEW.format(axes=f"{{type: batch}}, {axes}", more=more))
    with pytest.raises(PackageError, match=words):
        AcceptedSizes.of_package(source)
