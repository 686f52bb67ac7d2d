"""A package is read back as it was written, and one that cannot be run says why."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from packager.card import Card
from packager.describe import RDF, Digests, describe
from packager.weights import WEIGHTS, write_torchscript
from tests.packager.conftest import CARD, disc_image, make_checkpoint, make_subject
from zoo_models.checkpoint import Checkpoint, ClustererSettings, sha256
from zoo_models.errors import InputError, PackageError
from zoo_models.package import Package, read_space
from zoo_models.postprocessing import CLUSTERERS, build_clusterer, clusterer_file
from zoo_models.prediction.clustering import ClustererOptions, EmbeddingSpace

TORCHSCRIPT = WEIGHTS["torchscript"]
CLUSTERER = next(iter(CLUSTERERS))
OTHER_FILES = "0f" * 32
"""sha256 of the files of a package that prediction does not read: they are not there."""


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = make_checkpoint(levels=1)
    clusterer = ClustererSettings(CLUSTERER, {"min_size": 7, "background": [0.5, 0.0, -0.5]})
    return dataclasses.replace(made, clusterer=clusterer)


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What prediction reads of a package: description and TorchScript."""
    folder = tmp_path_factory.mktemp("files")
    tifffile.imwrite(folder / "sample.tif", disc_image((60, 60)))
    (folder / "card.toml").write_text(CARD)
    write_torchscript(
        checkpoint.network(),
        torch.rand(1, 1, *checkpoint.geometry.minimum),
        folder / TORCHSCRIPT,
    )
    known = {
        TORCHSCRIPT: sha256(folder / TORCHSCRIPT),
        f"{CLUSTERER}.py": sha256(clusterer_file(CLUSTERER)),
    }
    digests = Digests(defaultdict(lambda: OTHER_FILES, known), OTHER_FILES)
    text = describe(make_subject(checkpoint, Card.load(folder / "card.toml")), digests)
    return {RDF: text.encode(), TORCHSCRIPT: (folder / TORCHSCRIPT).read_bytes()}


@pytest.fixture
def write(files: dict[str, bytes], tmp_path: Path) -> Callable[..., Path]:
    def write(old: str = "", new: str = "", **changed: bytes) -> Path:
        assert old in files[RDF].decode()
        content = {**files, RDF: files[RDF].decode().replace(old, new).encode(), **changed}
        with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return tmp_path / "package.zip"

    return write


def refusal(source: Path) -> str:
    with pytest.raises(PackageError) as caught:
        Package.load(source)
    line = str(caught.value)
    assert str(source) in line
    assert "\n" not in line
    return line


def test_a_package_holds_what_was_put_in(
    write: Callable[..., Path], checkpoint: Checkpoint
) -> None:
    package = Package.load(write())
    assert package.geometry == checkpoint.geometry
    assert package.normalisation == checkpoint.normalisation
    assert (package.in_channels, package.embedding_dim) == (1, 3)
    assert type(package.clusterer).__name__ == CLUSTERERS[CLUSTERER]
    for name, value in checkpoint.clusterer.settings.items():
        assert getattr(package.clusterer, name) == value


def test_its_network_gives_the_checkpoints_numbers(
    write: Callable[..., Path], checkpoint: Checkpoint
) -> None:
    package = Package.load(write())
    width = checkpoint.geometry.minimum[0] + 2 * checkpoint.geometry.step[0]
    image = torch.rand(1, 1, width, width)
    with torch.no_grad():
        found, expected = package.network(image), checkpoint.network()(image)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_no_python_of_a_package_is_executed(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm: dict[str, Any] = {
        name: b"raise SystemExit('executed')" for name in (f"{CLUSTERER}.py", "unet_valid.py")
    }
    assert Package.load(write(**harm)).in_channels == 1
    assert capsys.readouterr().out == ""


def test_a_loaded_package_leaves_no_file_open(write: Callable[..., Path]) -> None:
    path = write()
    Package.load(path)
    path.unlink()  # refused on some systems while a file is open
    # and a file left open is a ResourceWarning, which fails a test


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    version: 1\n", "    version: 2\n", r"config\.spoco_zoo cannot be used \(version\)"),
        ("    axes: yx\n", "    axes: xy\n", r"config\.spoco_zoo cannot be used \(axes\)"),
        ("    axes: yx\n", "    axes: zyx\n", "geometry is impossible"),
        (
            "normalisation:\n      gain",
            "normalisation:\n      gian",
            r"cannot be used \(normalisation\.gain\)",
        ),
        ("      period:\n        - 2", "      period:\n        - 3", "geometry is impossible"),
        (f"name: {CLUSTERER}", "name: magic", r"'magic'.*install the spoco-zoo version"),
        ("        min_size:", "        size:", r"'size'.*install the spoco-zoo version"),
        ("spoco_zoo:", "others:", r"no config\.spoco_zoo.*bioimageio predict"),
        ("name: Discs", "nome: Discs", "not a valid bioimage.io model description"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(
    write: Callable[..., Path], old: str, new: str, message: str
) -> None:
    assert re.search(message, refusal(write(old, new)))


def test_another_version_of_the_clusterer_is_refused_whatever_its_settings(
    write: Callable[..., Path],
) -> None:
    digest = sha256(clusterer_file(CLUSTERER))
    line = refusal(write(digest, "ab" * 32))
    for words in ("another version of clusterer", "abababababab", digest[:12], "export the"):
        assert words in line


def test_what_it_tells_of_its_embeddings_is_the_checkpoints(
    write: Callable[..., Path], checkpoint: Checkpoint
) -> None:
    changed = dataclasses.replace(checkpoint, delta_v=0.25)
    source = write("delta_v: 0.5", "delta_v: 0.25")
    for options in (ClustererOptions(), ClustererOptions(min_size=3, settings=("delta_d=3",))):
        expected = options.applied(EmbeddingSpace.of_checkpoint(changed))
        assert read_space(source, options) == expected
        package = Package.load(source, options=options)
        assert package.space == expected
        assert vars(package.clusterer) == vars(build_clusterer(expected.clusterer))


def test_channels_of_a_teacher_are_no_dimensions_of_the_network(
    write: Callable[..., Path],
) -> None:
    package = Package.load(write("- embedding_2", "- teacher_0"))
    assert (package.embedding_dim, package.space.dimensions) == (3, 2)


def test_another_method_runs_whatever_the_version_of_the_packages_own(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(sha256(clusterer_file(CLUSTERER)), "ab" * 32)
    copied = "a_copy_of_it"
    monkeypatch.setitem(CLUSTERERS, copied, CLUSTERERS[CLUSTERER])
    module = import_module(f"zoo_models.postprocessing.{CLUSTERER}")
    monkeypatch.setitem(sys.modules, f"zoo_models.postprocessing.{copied}", module)
    with pytest.raises(PackageError, match=r"another version.*--method"):
        read_space(source)
    assert read_space(source, ClustererOptions(method=copied)).clusterer.name == copied
    with pytest.raises(InputError, match="'magic': expected one of"):
        read_space(source, ClustererOptions(method="magic"))


def test_weights_that_are_not_those_described_are_refused(
    write: Callable[..., Path], files: dict[str, bytes]
) -> None:
    damaged = bytearray(files[TORCHSCRIPT])
    damaged[len(damaged) // 2] ^= 1
    assert "TorchScript weights cannot be loaded" in refusal(write(**{TORCHSCRIPT: bytes(damaged)}))


def test_weights_that_are_no_torchscript_are_refused(
    write: Callable[..., Path], files: dict[str, bytes]
) -> None:
    described = hashlib.sha256(files[TORCHSCRIPT]).hexdigest()
    other = hashlib.sha256(b"other").hexdigest()
    line = refusal(write(described, other, **{TORCHSCRIPT: b"other"}))
    assert "TorchScript weights cannot be loaded" in line
