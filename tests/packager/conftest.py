"""A small trained-looking checkpoint, its card, and one exported package for the whole session."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from packager.card import Card
from packager.certificate import Certificate
from packager.describe import Subject
from packager.export import ExportReport, export
from packager.kinds import KindName
from packager.kinds import product as make_product
from zoo_models.architectures.unet_valid import UNetValid
from zoo_models.checkpoint import Checkpoint, ClustererSettings, Normalisation, build_network

DEFAULTS = {name: p.default for name, p in inspect.signature(UNetValid).parameters.items()}

CARD = """
title = "Discs on a slope 2D"
description = "Finds bright discs. Made for tests."
licence = "CC0-1.0"
version = "0.2.0"
released = 2025-11-21
tags = ["fluorescence-light-microscopy", "2d", "nuclei", "pytorch", "ilastik", "unet",
        "instance-segmentation"]
input_channels = ["fluorescence"]
limits = ["Knows discs only."]

[sample]
file = "sample.tif"
source = "synthetic, CC0 1.0"

[[authors]]
name = "A. Person"
affiliation = "A Laboratory"
orcid = "0000-0002-1825-0097"

[[maintainers]]
github_user = "bioimageiobot"

[[citations]]
text = "Wolny et al. 2022"
doi = "10.48550/arXiv.2103.14572"

[training_data]
name = "Discs"
text = "Ten images of discs."
licence = "CC0 1.0"
source = "https://example.com/discs"

[[measurements]]
title = "Test images"
columns = ["metric", "value"]
rows = [["AP@0.5", 0.875], ["images", 3]]
"""


def disc_image(shape: tuple[int, int]) -> np.ndarray:
    """Discs of different brightness on a slope: every pixel's neighbourhood tells where it is."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    image = 10 + y / shape[0] * 20 + x / shape[1] * 10
    rng = np.random.default_rng(0)
    for centre_y, centre_x in rng.uniform(0, shape, (40, 2)):
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < 6**2
        image[inside] = rng.uniform(60, 250)
    return (image + rng.normal(0, 2, shape)).clip(0, 255).astype(np.uint8)


def randomise_statistics(network: torch.nn.Module) -> None:
    """Batch norms as after a training, from torch's global generator."""
    for part in network.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.1, 0.3)


def make_checkpoint(seed: int = 0, **kwargs: Any) -> Checkpoint:
    """Random weights and random batch norm statistics, with outputs of a trained network's size."""
    kwargs = {**DEFAULTS, "width": 4, "levels": 2, "embedding_dim": 3, **kwargs}
    torch.manual_seed(seed)
    network = build_network("unet_valid", kwargs)
    randomise_statistics(network)
    return Checkpoint(
        architecture="unet_valid",
        kwargs=kwargs,
        weights=network.state_dict(),
        delta_v=0.5,
        delta_d=2.0,
        normalisation=Normalisation(gain=1 / 255, offset=-0.25),
        axes="yx" if kwargs["ndim"] == 2 else "zyx",
        voxel_size_um=None,
        clusterer=ClustererSettings("basin_merging", {"join": 0.4, "min_size": 5}),
        provenance={"seed": seed, "data": "discs"},
    )


def make_subject(checkpoint: Checkpoint, card: Card, kind: KindName = "embeddings") -> Subject:
    """What a package's words are made of, with a certificate that tells of no trial."""
    product = make_product(checkpoint, card.input_channels, kind=kind)
    return Subject(checkpoint, card, product, Certificate((), {"spoco-zoo": "0"}))


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """A 2D network with two poolings: period 4, halo 20, tiles 48 + n * 8."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def make() -> Callable[..., Checkpoint]:
    return make_checkpoint


@pytest.fixture(scope="session")
def card_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    tifffile.imwrite(folder / "sample.tif", disc_image((150, 170)))
    path = folder / "card.toml"
    path.write_text(CARD)
    return path


@pytest.fixture(scope="session")
def card(card_path: Path) -> Card:
    return Card.load(card_path)


@pytest.fixture(scope="session")
def report(
    checkpoint: Checkpoint, card: Card, tmp_path_factory: pytest.TempPathFactory
) -> ExportReport:
    """What `export` says of the package it wrote."""
    return export(checkpoint, card, tmp_path_factory.mktemp("package") / "discs.zip")


@pytest.fixture(scope="session")
def package(report: ExportReport) -> Path:
    return report.package
