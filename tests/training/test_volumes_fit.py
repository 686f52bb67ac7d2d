"""A volume in HDF5 or OME-Zarr, cut into splits by the configuration, is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.volume_files import write_hdf5, write_ome_zarr
from training.config import load_config
from training.fit import fit
from training.sections import DataSection
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ConfigError

CONFIG = """
name = "volumes"
seed = 3

[data]
folder = "."
layout = "volumes"
axes = "zyx"
gain = 0.01
volumes.train = { images = ["IMAGE"], labels = ["LABELS"] }
volumes.val = { images = ["IMAGE"], labels = ["LABELS"] }
crop.train = { z = [0, 14] }
crop.val = { z = [14, 28] }

[network]
embedding_dim = 4
width = 4
max_width = 8
levels = 1
convolutions = 1

[patch]
output = 10
batch = 1

[run]
max_steps = 2
epoch_steps = 2
workers = 0
"""


def write_cells(folder: Path) -> None:
    labels = np.zeros((28, 20, 20), np.uint16)
    for number, (z, y, x) in enumerate(np.ndindex(4, 2, 2), start=1):
        labels[7 * z + 1 : 7 * z + 6, 10 * y + 2 : 10 * y + 8, 10 * x + 2 : 10 * x + 8] = number
    image = 20 + 60 * (labels > 0) + np.random.default_rng(0).normal(0, 4, labels.shape)
    write_hdf5(folder / "cells.h5", raw=image.astype(np.uint8), label=labels)
    write_ome_zarr(folder / "cells.zarr", image[np.newaxis].astype(np.uint8), "czyx", version="0.5")
    write_ome_zarr(folder / "cells.zarr" / "labels" / "cells", labels, "zyx", version="0.5")


@pytest.mark.parametrize(
    ("image", "labels"),
    [("cells.h5:/raw", "cells.h5:/label"), ("cells.zarr", "cells.zarr/labels/cells")],
    ids=["HDF5", "OME-Zarr"],
)
def test_a_network_is_trained_on_one_part_of_a_volume_and_validated_on_the_other(
    tmp_path: Path, image: str, labels: str
) -> None:
    write_cells(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace("IMAGE", image).replace("LABELS", labels))
    checkpoint = Checkpoint.load(fit(load_config(path), tmp_path / "run"))
    assert checkpoint.axes == "zyx"
    assert 0 <= checkpoint.provenance["validation"]["val/ap50"] <= 1
    data = checkpoint.provenance["config"]["data"]
    assert data["crop"] == {"train": {"z": [0, 14]}, "val": {"z": [14, 28]}}
    assert image not in str(checkpoint.provenance)  # no record of where files lay


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('"volumes"\n', '"folders"\n'), "the layout is 'folders' and 2 splits are named"),
        (('"volumes"\naxes = "zyx"', '"ovules"\naxes = "yx"'), "the layout is 'ovules' and"),
        (("z = [0, 14]", "z = [14, 14]"), "crop.train.z is [14, 14], expected"),
        (("z = [0, 14]", "w = [0, 14]"), "crop.train.w is [0, 14], expected an axis of 'zyx'"),
        (("labels = [", 'labels = ["a.tif", '), "1 images and 2 labels given"),
        (("crop.val", "crop.valid"), "data.crop.valid"),
    ],
)
def test_a_configuration_of_volumes_that_cannot_work_is_refused(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert complaint in str(caught.value)


def test_the_axes_of_a_published_layout_must_be_named() -> None:
    with pytest.raises(ValueError, match='set axes = "zyx"'):
        DataSection(folder=".", layout="ovules")
