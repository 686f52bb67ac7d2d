"""The model card: what a human must say about a model, read from `card.toml`.

Everything else in a package is computed from the checkpoint. A card holds one table per subject:

    title = "Nuclei in fluorescence images 2D"    # letters, digits, spaces and _ + - ( )
    description = "One paragraph, at most 512 characters."
    licence = "CC0-1.0"                           # SPDX
    version = "0.1.0"
    released = 2025-11-21                         # becomes the package's timestamp
    tags = ["nuclei", "2d", ...]                  # one of each bioimage.io category
    input_channels = ["fluorescence"]
    limits = ["...", "..."]                       # what the model is known to get wrong

    [sample]                                      # a real image that may be passed on
    file = "example/image.tif"
    source = "BBBC038, CC0 1.0"

    [[authors]]        name, affiliation?, orcid?, github_user?
    [[maintainers]]    github_user, name?
    [[citations]]      text, doi
    [training_data]    name, text, licence, source, bioimageio_id?
    [[measurements]]   title, columns, rows, note?
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from zoo_models.errors import InputError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Title = Annotated[
    str, StringConstraints(min_length=5, max_length=64, pattern=r"^[A-Za-z0-9_+\- ()]+$")
]
Doi = Annotated[str, StringConstraints(pattern=r"^10\.[0-9]{4,}(\.[0-9]+)*/\S+$")]
Orcid = Annotated[str, StringConstraints(pattern=r"^(\d{4}-){3}\d{3}[\dX]$")]


class _Strict(BaseModel):
    """Unknown keys are refused, so that a misspelt one is not silently lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Author(_Strict):
    name: Text
    affiliation: Text | None = None
    orcid: Orcid | None = None
    github_user: Text | None = None


class Maintainer(_Strict):
    """Who answers for the package. The validator looks `github_user` up, or knows it already."""

    github_user: Text
    name: Text | None = None


class Citation(_Strict):
    text: Text
    doi: Doi


class TrainingData(_Strict):
    """`bioimageio_id`: the data set's id in the bioimage.io collection, if it is there."""

    name: Text
    text: Text
    licence: Text
    source: Text
    bioimageio_id: Text | None = None


class Sample(_Strict):
    """A real image: the test tensors are cut from it and the cover is made of it."""

    file: Path
    source: Text


class Measurement(_Strict):
    """One table of measured numbers, printed in the package's validation section."""

    title: Text
    columns: Annotated[tuple[Text, ...], Field(min_length=2)]
    rows: Annotated[tuple[tuple[str | int | float, ...], ...], Field(min_length=1)]
    note: str = ""

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Self:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} has {len(row)} values for {len(self.columns)} columns"
                )
        return self


class Card(_Strict):
    """A model card. `sample.file` is absolute after `load`."""

    title: Title
    description: Annotated[Text, StringConstraints(max_length=512)]
    licence: Text
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")] = "0.1.0"
    released: datetime.date
    tags: Annotated[tuple[Text, ...], Field(min_length=1)]
    input_channels: Annotated[tuple[Text, ...], Field(min_length=1)]
    authors: Annotated[tuple[Author, ...], Field(min_length=1)]
    maintainers: Annotated[tuple[Maintainer, ...], Field(min_length=1)]
    citations: Annotated[tuple[Citation, ...], Field(min_length=1)]
    training_data: TrainingData
    sample: Sample
    measurements: Annotated[tuple[Measurement, ...], Field(min_length=1)]
    limits: tuple[Text, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `card.toml`; paths in it are relative to its folder.

        Raises:
            InputError: missing, no TOML, a field missing, unknown or impossible, or the sample
                image is not there. All findings in one line.
        """
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; expected a model card (card.toml, see packager/card.py)."
            )
        try:
            card = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a TOML file ({error}); correct it.") from error
        except ValidationError as error:
            raise InputError(f"{path}: {_in_one_line(error)}; correct these fields.") from error
        file = (path.parent / card.sample.file).resolve()
        if not file.is_file():
            raise InputError(
                f"{path}: sample.file names {file}, which is not there; add the image."
            )
        return card.model_copy(update={"sample": card.sample.model_copy(update={"file": file})})


def _in_one_line(error: ValidationError) -> str:
    """Every finding as `field: what is wrong`."""
    findings = [
        f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg'].removeprefix('Value error, ')}"
        for e in error.errors()
    ]
    return "; ".join(findings)
