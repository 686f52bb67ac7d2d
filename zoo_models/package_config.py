"""What `spoco-zoo export` writes into a description about itself: `config.spoco_zoo`.

The part that prediction reads; the rest of it is for people.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Geometry(Section):
    halo: list[int]
    step: list[int]
    min: list[int]
    period: list[int]
    shrink: list[int]


class Normalisation(Section):
    gain: float
    offset: float


class Embedding(Section):
    delta_v: float
    delta_d: float


class Clusterer(Section):
    name: str
    sha256: str
    settings: dict[str, float | int | bool | list[float]]


class PackageConfig(Section):
    """`config.spoco_zoo` of the description, as far as prediction reads it."""

    version: Literal[1]
    kind: str = "embeddings"
    axes: Literal["yx", "zyx"]
    geometry: Geometry
    normalisation: Normalisation
    embedding: Embedding
    clusterer: Clusterer
