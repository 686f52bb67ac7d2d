"""Ovules: cells of Arabidopsis ovules, confocal volumes of the PlantSeg paper (zyx).

    FOLDER
    ├── train/  N_*_ds2x.h5    /raw the image, /label the cells
    ├── val/
    └── test/

/label: one number per cell, 0 is background and what nobody labelled. Some copies also hold
/label_with_ignore, in which the latter is -1; it is not read, both are background here.

Splits as published, by folder. A splits.json, where there is one, chooses some names (files without
suffix) of each split. The lateral roots of the same paper have the same layout.
"""

from __future__ import annotations

from pathlib import Path

from training.layouts.arrays import Array
from training.layouts.sources import Pair
from training.layouts.splits import expect_some, listed


def pairs(folder: Path, split: str) -> list[Pair]:
    """Volumes of a split and their cells.

    Raises:
        ImageError: no volumes, or splits.json does not fit.
    """
    found = expect_some(
        sorted((folder / split).glob("*.h5")),
        folder,
        pattern=f"{split}/*.h5",
        layout="PlantSeg ovules",
    )
    by_name = {path.stem: path for path in found}
    return [
        Pair(name, Array(by_name[name], "raw"), Array(by_name[name], "label"))
        for name in listed(folder, split, by_name)
    ]
