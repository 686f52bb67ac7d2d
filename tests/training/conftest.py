"""A tiny annotated data set of bright discs, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

CONFIG = """
name = "discs"
seed = 3

[data]
folder = "data"
gain = 0.01

[network]
embedding_dim = 4
width = 4
max_width = 8
levels = 1
convolutions = 1

[patch]
output = 36
batch = 2

[run]
max_steps = 4
epoch_steps = 2
workers = 0
"""


def discs(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 and labels uint16 of discs on a jittered grid."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    y, x = np.indices(shape)
    for number, centre in enumerate(np.ndindex(shape[0] // 16, shape[1] // 16), start=1):
        place = np.array(centre) * 16 + 8 + rng.integers(-2, 3, 2)
        labels[(y - place[0]) ** 2 + (x - place[1]) ** 2 < 30] = number
    image = 20 + 60 * (labels > 0) + rng.normal(0, 4, shape)
    return image.astype(np.uint8), labels


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    names = {"train": ["a", "b"], "val": ["c"]}
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for seed, name in enumerate("abc"):
        image, labels = discs((48, 64), seed)
        tifffile.imwrite(folder / "images" / f"{name}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{name}.tif", labels)
    (folder / "splits.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def config_file(data_folder: Path) -> Path:
    path = data_folder.parent / "config.toml"
    path.write_text(CONFIG)
    return path
