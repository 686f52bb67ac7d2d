"""BBBC006: nuclei of U2OS cells in fluorescence, in focus (yx, 16 bit).

    FOLDER
    ├── BBBC006_v1_images_z_16/  mcf-z-stacks-03212011_a01_s1_w1UUID.tif (Hoechst), w2 (not read)
    └── BBBC006_v1_labels/       mcf-z-stacks-03212011_a01_s1.png

z 16 is the plane in focus, which the labels are for. One number per nucleus, 0 is background; of a
label image with one value only, as in copies that hold masks, the connected components.

No published split: names (mcf-z-stacks-03212011_a01_s1) are split by splits.json, else by well, as
splits.py says, so that the two sites of a well stay together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.layouts.sources import Derived, ImageFile, Pair, components
from training.layouts.splits import expect_some, names_of_split


def pairs(folder: Path, split: str) -> list[Pair]:
    """Images of a split and their nuclei.

    Raises:
        ImageError: no images, or splits.json does not fit.
    """
    images = "BBBC006_v1_images_z_16"
    found = expect_some(
        sorted((folder / images).glob("*_w1*.tif")),
        folder,
        pattern=f"{images}/*_w1*.tif",
        layout="BBBC006",
    )
    by_name = {path.name.split("_w1")[0]: path for path in found}
    return [
        Pair(
            name,
            ImageFile(by_name[name]),
            Derived(ImageFile(folder / "BBBC006_v1_labels" / f"{name}.png"), nuclei),
        )
        for name in names_of_split(folder, split, by_name, group=_well)
    ]


def nuclei(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """The labels, or their components where all foreground has one value."""
    return components(labels) if len(np.unique(labels[labels > 0])) == 1 else labels


def _well(name: str) -> str:
    return name.rsplit("_s", 1)[0]
