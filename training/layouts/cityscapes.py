"""Cityscapes: RGB photographs of streets, every car, person, ... an instance.

    FOLDER
    ├── leftImg8bit/{train,val}/CITY/CITY_000000_000019_leftImg8bit.png
    └── gtFine/{train,val}/CITY/CITY_000000_000019_gtFine_instanceIds.png

instanceIds (cityscapesScripts, json2instanceImg.py): an instance is class * 1000 + number; below
1000 are classes without instances and groups in which nobody could tell the instances apart.
Kept are the instances of the eight classes that the benchmark evaluates, ids as they are; all else,
groups and regions to ignore included, is background.

Splits as published; the labels of test are withheld. A splits.json, where there is one, chooses
some names (CITY/CITY_000000_000019) of each split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.layouts.sources import Derived, ImageFile, Pair, Photo
from training.layouts.splits import expect_some, listed, no_labels

CLASSES = (24, 25, 26, 27, 28, 31, 32, 33)
"""person, rider, car, truck, bus, train, motorcycle, bicycle"""
PHOTO, LABELS = "_leftImg8bit.png", "_gtFine_instanceIds.png"


def pairs(folder: Path, split: str) -> list[Pair]:
    """Photographs of a split and their instances.

    Raises:
        ImageError: the split is test, there are no photographs, or splits.json does not fit.
    """
    if split == "test":
        raise no_labels(folder, split, layout="Cityscapes", known="train or val")
    photos, labels = folder / "leftImg8bit" / split, folder / "gtFine" / split
    found = expect_some(
        sorted(photos.glob(f"*/*{PHOTO}")),
        folder,
        pattern=f"leftImg8bit/{split}/CITY/*{PHOTO}",
        layout="Cityscapes",
    )
    names = [path.relative_to(photos).as_posix().removesuffix(PHOTO) for path in found]
    return [
        Pair(
            name,
            Photo(photos / f"{name}{PHOTO}"),
            Derived(ImageFile(labels / f"{name}{LABELS}"), instances),
        )
        for name in listed(folder, split, names)
    ]


def instances(ids: NDArray[np.integer]) -> NDArray[np.integer]:
    """The ids of instances of the evaluated classes; 0 elsewhere."""
    return np.where(np.isin(ids // 1000, CLASSES), ids, 0)
