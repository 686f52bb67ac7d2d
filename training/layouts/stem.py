"""Stem: cells of the Arabidopsis apical stem cell niche, time courses of six plants (zyx).

    FOLDER                     PNAS, as unpacked
    └── plant1/ plant2/ plant4/ plant13/ plant15/ plant18/
        ├── processed_tiffs/     0hrs_plant1_trim-acylYFP.tif (membranes), ...-clv3.tif (not read)
        └── segmentation_tiffs/  0hrs_plant1_trim-acylYFP_hmin_2_asf_1_s_2.00_clean_3.tif

A segmentation is the file whose name begins with that of its image. One number per cell, and the
background is labelled 1 (README of the data): here it becomes 0.

No published split: names (plant1/0hrs_plant1_trim-acylYFP) are split by splits.json, else by plant,
as splits.py says, because one plant looks alike at all times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.layouts.sources import Derived, ImageFile, Pair
from training.layouts.splits import expect_some, names_of_split
from zoo_models.errors import ImageError

BACKGROUND = 1


def pairs(folder: Path, split: str) -> list[Pair]:
    """Volumes of a split and their cells.

    Raises:
        ImageError: no volumes, a volume without its segmentation or with several, or splits.json
            does not fit.
    """
    found = expect_some(
        sorted(folder.glob("plant*/processed_tiffs/*acylYFP.tif")),
        folder,
        pattern="plant*/processed_tiffs/*acylYFP.tif",
        layout="the stem data (PNAS)",
    )
    by_name = {f"{path.parents[1].name}/{path.stem}": path for path in found}
    names = names_of_split(folder, split, by_name, group=lambda name: name.split("/")[0])
    segmented = {name: _segmentations(by_name[name]) for name in names}
    odd = [f"{name} ({len(paths)})" for name, paths in segmented.items() if len(paths) != 1]
    if odd:
        raise ImageError(
            f"{folder}: expected one file in segmentation_tiffs/ that begins with the name of the "
            f"image, found another number for {', '.join(odd[:3])} ({len(odd)} images): add the "
            "file, or leave the image out in splits.json"
        )
    return [
        Pair(name, ImageFile(by_name[name]), Derived(ImageFile(segmented[name][0]), cells))
        for name in names
    ]


def cells(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Labels with background 0 instead of 1."""
    return np.where(labels == BACKGROUND, 0, labels)


def _segmentations(image: Path) -> list[Path]:
    folder = image.parents[1] / "segmentation_tiffs"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.tif") if path.name.startswith(image.stem))
