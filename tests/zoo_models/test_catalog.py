"""The catalog: what is in it, and the nearest name for one that is not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from zoo_models import catalog
from zoo_models.catalog import find_checkpoint, find_model, list_models
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import InputError

MODELS = list_models()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nuclei-fluo-2d", "axons-em-3d", "unfinished"):
        (tmp_path / name).mkdir()
        if name != "unfinished":
            (tmp_path / name / "checkpoint.safetensors").touch()
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    return tmp_path


def test_models_are_folders_with_a_checkpoint_by_name(root: Path) -> None:
    assert [model.name for model in list_models()] == ["axons-em-3d", "nuclei-fluo-2d"]


def test_a_model_knows_its_files(root: Path) -> None:
    model = find_model("nuclei-fluo-2d")
    assert model.checkpoint == root / "nuclei-fluo-2d" / "checkpoint.safetensors"
    assert model.config == root / "nuclei-fluo-2d" / "config.toml"
    assert model.card == root / "nuclei-fluo-2d" / "card.toml"


def test_a_checkpoint_is_found_by_its_path_or_by_a_models_name(root: Path, tmp_path: Path) -> None:
    assert find_checkpoint("somewhere/a.safetensors") == Path("somewhere/a.safetensors")
    assert find_checkpoint(str(tmp_path)) == tmp_path
    assert find_checkpoint("nuclei-fluo-2d") == find_model("nuclei-fluo-2d").checkpoint
    with pytest.raises(InputError, match="neither a file nor a catalog model"):
        find_checkpoint("nowhere")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nuclei-fluo2d", "did you mean 'nuclei-fluo-2d'"),
        ("Nuclei-Fluo-2d", "did you mean 'nuclei-fluo-2d'"),
        ("unfinished", "see 'spoco-zoo models'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known(root: Path, name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'.*axons-em-3d, nuclei-fluo-2d: {hint}"):
        find_model(name)


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_an_empty_catalog_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(catalog, "ROOT", tmp_path / folder)
    assert list_models() == ()
    with pytest.raises(InputError, match="the catalog is empty"):
        find_model("nuclei-fluo-2d")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_shipped_model_is_whole(model: catalog.CatalogModel) -> None:
    assert model.checkpoint.stat().st_size <= 10e6
    sample = model.folder / tomllib.loads(model.card.read_text())["sample"]["file"]
    for path in (model.config, model.card, sample, sample.with_name("labels.tif")):
        assert path.is_file()
    Checkpoint.load(model.checkpoint).network()  # the weights fit


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_shipped_checkpoint_is_read_and_written_unchanged(
    model: catalog.CatalogModel, tmp_path: Path
) -> None:
    loaded = Checkpoint.load(model.checkpoint)
    assert loaded.teacher is None
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == model.checkpoint.read_bytes()
