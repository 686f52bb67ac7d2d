"""Packages, checkpoints and cards that cannot be used: one line of what is wrong and what to do.

Exit code 2, and nothing written or half-written: `refused` looks at the folder afterwards.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from packager.export import zip_folder
from tests.e2e.conftest import (
    Chain,
    assert_says,
    refused,
)
from tests.packager.conftest import CARD
from zoo_models import catalog
from zoo_models.checkpoint import Checkpoint


@pytest.fixture
def repack(package: Path, folder: Path) -> Callable[..., Path]:
    """Write the package anew with its description changed; a name is left out, or its bytes."""
    build = folder / "build"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(build)

    def write(change: Callable[[str], str] = str, **files: bytes | None) -> Path:
        description = build / "rdf.yaml"
        before = description.read_text()
        description.write_text(change(before))
        assert files or description.read_text() != before
        for name, content in files.items():
            path = build / name.replace("__", ".")
            path.unlink() if content is None else path.write_bytes(content)
        return zip_folder(build, folder / "changed.zip")

    return write


def test_a_wrong_path_of_a_package_is_refused(image: Path, folder: Path) -> None:
    line = refused("predict", "no.zip", image, "-o", "out", unchanged=folder)
    assert_says(line, "no.zip", "no such file", "expected a package", "spoco-zoo export")


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "image"])
def test_a_file_that_is_no_zip_is_refused(
    package: Path, image: Path, folder: Path, kind: str
) -> None:
    whole = package.read_bytes()
    content = {
        "text": b"no package",
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "image": image.read_bytes(),
    }
    (folder / "bad.zip").write_bytes(content[kind])
    line = refused("predict", "bad.zip", image, "-o", "out", unchanged=folder)
    assert_says(line, "bad.zip", "not a complete zip", "expected a package", "spoco-zoo export")


def test_a_zip_of_other_things_is_refused(image: Path, folder: Path) -> None:
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "no package")
    line = refused("predict", "other.zip", image, "-o", "out", unchanged=folder)
    assert_says(line, "other.zip", "not a bioimage.io package", "notes.txt", "expected")


def test_a_folder_of_other_things_is_no_package(image: Path, folder: Path) -> None:
    line = refused("predict", folder, image, "-o", "out", unchanged=folder)
    assert_says(line, "without rdf.yaml", "expected a package")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a list", ("not a bioimage.io package", "mapping")),
        ("a: [b", ("not a bioimage.io package",)),
        ("type: dataset\nformat_version: 0.3.0\nname: Images", ("not a valid", "dataset")),
        ("type: model\nformat_version: 0.5.9\nname: Half", ("not a valid", "validate-format")),
    ],
)
def test_another_description_is_refused(
    repack: Callable[..., Path], image: Path, folder: Path, content: str, words: tuple[str, ...]
) -> None:
    changed = repack(lambda _: content)
    line = refused("predict", changed, image, "-o", "out", unchanged=folder)
    assert_says(line, "changed.zip", *words, "spoco-zoo export")


def test_a_package_of_somebody_else_is_refused_with_what_runs_it(
    repack: Callable[..., Path], image: Path, folder: Path
) -> None:
    foreign = repack(lambda rdf: rdf.partition("\nconfig:")[0] + "\n")
    line = refused("predict", foreign, image, "-o", "out", unchanged=folder)
    assert_says(line, "no config.spoco_zoo", "spoco-zoo export", "bioimageio predict")


def test_a_package_of_another_format_version_is_refused(
    repack: Callable[..., Path], image: Path, folder: Path
) -> None:
    newer = repack(lambda rdf: rdf.replace("    version: 1\n", "    version: 9\n", 1))
    line = refused("predict", newer, image, "-o", "out", unchanged=folder)
    assert_says(line, "config.spoco_zoo", "version", "export")


def with_another_clusterer(rdf: str) -> str:
    head, _, tail = rdf.partition("    clusterer:\n")
    digest = tail.partition("sha256: ")[2][:64]
    return head + "    clusterer:\n" + tail.replace(digest, "f" * 64)


def test_a_package_with_another_version_of_its_clusterer_is_refused(
    repack: Callable[..., Path], image: Path, folder: Path
) -> None:
    # its settings, too, may be unknown here: what counts is the version
    changed = repack(lambda rdf: with_another_clusterer(rdf).replace("background:", "novelty:"))
    line = refused("predict", changed, image, "-o", "out", unchanged=folder)
    assert_says(line, "another version of clusterer", "ffffffffffff", "export the package again")


def test_a_package_with_an_unknown_clusterer_is_refused(
    repack: Callable[..., Path], chain: Chain, image: Path, folder: Path
) -> None:
    name = Checkpoint.load(chain.checkpoint).clusterer.name
    changed = repack(lambda rdf: rdf.replace(f"name: {name}", "name: magic"))
    line = refused("predict", changed, image, "-o", "out", unchanged=folder)
    assert_says(line, "changed.zip", "'magic'", name, "install")


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_package_with_damaged_weights_is_refused(
    repack: Callable[..., Path], image: Path, folder: Path, content: bytes | None
) -> None:
    changed = repack(weights__torchscript__pt=content)
    line = refused("predict", changed, image, "-o", "out", unchanged=folder)
    assert_says(line, "changed.zip", "TorchScript weights", "again")


def test_a_package_with_a_flipped_byte_is_refused(package: Path, image: Path, folder: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        start = archive.getinfo("weights.torchscript.pt").header_offset
    content = bytearray(package.read_bytes())
    content[start + 500] ^= 255
    (folder / "flipped.zip").write_bytes(content)
    line = refused("predict", "flipped.zip", image, "-o", "out", unchanged=folder)
    assert_says(line, "flipped.zip", "TorchScript weights", "again")


def checkpoint_of_another_kind(path: Path, kind: str, ours: bytes) -> Path:
    if kind == "torch":
        torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "empty":
        path.touch()
    else:
        path.write_bytes(ours[: {"cut": len(ours) - 40, "head": 60}[kind]])
    return path


@pytest.mark.parametrize("kind", ["torch", "foreign", "text", "empty", "cut", "head"])
def test_a_checkpoint_of_another_kind_is_refused(chain: Chain, folder: Path, kind: str) -> None:
    path = checkpoint_of_another_kind(folder / "net.pt", kind, chain.checkpoint.read_bytes())
    line = refused("export", path, "-o", "discs.zip", unchanged=folder)
    found = "without the 'spoco_zoo' header" if kind == "foreign" else "not a complete safetensors"
    assert_says(line, "net.pt", found, "expected a checkpoint written by 'spoco-zoo train'")


def test_a_wrong_path_of_a_checkpoint_is_refused(chain: Chain, folder: Path) -> None:
    line = refused("export", "no.safetensors", "-o", "discs.zip", unchanged=folder)
    assert_says(line, "no.safetensors", "no such file", "expected a checkpoint")


def test_a_folder_is_no_checkpoint(chain: Chain, folder: Path) -> None:
    line = refused("export", chain.checkpoint.parent, "-o", "discs.zip", unchanged=folder)
    assert_says(line, "a folder", "expected a checkpoint")


def test_a_checkpoint_without_card_is_refused(chain: Chain, folder: Path) -> None:
    (folder / "alone.safetensors").write_bytes(chain.checkpoint.read_bytes())
    line = refused("export", "alone.safetensors", "-o", "discs.zip", unchanged=folder)
    assert_says(line, "card.toml", "no such file", "expected a model card")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("title = ", ("not a TOML file", "correct")),
        (CARD.replace('licence = "CC0-1.0"', ""), ("licence", "correct")),
        (CARD.replace("version =", "verison ="), ("verison", "correct")),
        (CARD, ("sample.file", "not there")),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(
    chain: Chain, folder: Path, card: str, words: tuple[str, ...]
) -> None:
    (folder / "card.toml").write_text(card)
    arguments = ("export", chain.checkpoint, "-o", "discs.zip", "--card", "card.toml")
    assert_says(refused(*arguments, unchanged=folder), "card.toml", *words)


def test_an_existing_package_is_not_replaced_unasked(chain: Chain, folder: Path) -> None:
    (folder / "discs.zip").write_text("an earlier package")
    line = refused("export", chain.checkpoint, "-o", "discs.zip", unchanged=folder)
    assert_says(line, "discs.zip", "exists already", "--overwrite")


def test_a_package_that_is_no_zip_is_refused(chain: Chain, folder: Path) -> None:
    line = refused("export", chain.checkpoint, "-o", "discs.tar", unchanged=folder)
    assert_says(line, "discs.tar", ".zip")


@pytest.fixture
def models(chain: Chain, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog with one model, which has no card."""
    model = folder / "catalog" / "nuclei-fluo-2d"
    model.mkdir(parents=True)
    (model / "checkpoint.safetensors").write_bytes(chain.checkpoint.read_bytes())
    monkeypatch.setattr(catalog, "ROOT", model.parent)
    return model


def test_a_misspelt_catalog_name_is_answered_with_the_nearest(models: Path, folder: Path) -> None:
    line = refused("export", "nuclei-flou-2d", "-o", "discs.zip", unchanged=folder)
    assert_says(line, "'nuclei-flou-2d'", "neither a file nor a catalog model")
    assert_says(line, "did you mean 'nuclei-fluo-2d'")
    line = refused("export", "axons", "-o", "discs.zip", unchanged=folder)
    assert_says(line, "expected one of nuclei-fluo-2d", "spoco-zoo models")


def test_a_catalog_model_without_card_is_refused(models: Path, folder: Path) -> None:
    for arguments in (("export", "nuclei-fluo-2d", "-o", "discs.zip"), ("models",)):
        line = refused(*arguments, unchanged=folder)
        assert_says(line, "nuclei-fluo-2d", "card.toml", "expected a model card")
