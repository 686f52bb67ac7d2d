"""The ready models of this repository, one folder each in zoo_models/catalog/.

zoo_models/catalog/<name>/
  checkpoint.safetensors    weights, geometry and settings (Checkpoint)
  config.toml               the configuration it was trained with
  card.toml                 what a human says about it: authors, data, licence, numbers
  example/image.tif         an image that may be passed on, and
  example/labels.tif        its true instances; models of one data set share those of one folder
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from zoo_models.errors import InputError

ROOT = Path(__file__).with_name("catalog")


@dataclass(frozen=True)
class CatalogModel:
    name: str
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def card(self) -> Path:
        return self.folder / "card.toml"


def list_models() -> tuple[CatalogModel, ...]:
    """All catalog models, by name."""
    folders = sorted(path.parent for path in ROOT.glob("*/checkpoint.safetensors"))
    return tuple(CatalogModel(folder.name, folder) for folder in folders)


def model_named(source: str) -> CatalogModel | None:
    """The model that `source` names, or None where it is a path: it exists, or has a suffix.

    Raises:
        InputError: it is neither.
    """
    path = Path(source)
    return None if path.suffix or path.exists() else find_model(source)


def find_checkpoint(source: str) -> Path:
    """The checkpoint file that `source` names: a path, or a model of the catalog.

    Raises:
        InputError: it is neither.
    """
    model = model_named(source)
    return Path(source) if model is None else model.checkpoint


def find_model(name: str) -> CatalogModel:
    """One model by name.

    Raises:
        InputError: there is no such model; the nearest name is suggested.
    """
    models = {model.name: model for model in list_models()}
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name, models, n=1)
    hint = f"did you mean {near[0]!r}" if near else "see 'spoco-zoo models'"
    raise InputError(
        f"{name!r} is neither a file nor a catalog model; expected one of "
        f"{', '.join(models) or '(the catalog is empty)'}: {hint}."
    )
