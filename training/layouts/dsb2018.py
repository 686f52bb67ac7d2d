"""Data Science Bowl 2018 (BBBC038): nuclei in fluorescence, bright field and stained tissue (yx).

    FOLDER                     stage1_train, or the folder that holds it
    └── ID/
        ├── images/ID.png      RGBA; grey images have equal colours, alpha is constant
        └── masks/*.png        one nucleus each, 0 and 255

The nuclei of an image are numbered in the order of their files. Masks should not overlap; where
they do, the smaller nucleus is on top.

With network.in_channels = 1, only grey images can be read: name them in splits.json. With 3, all
can, grey as three equal channels.

No published split with labels: ids are split by splits.json, else as splits.py says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.layouts.sources import Pair, Part, Photo, Wanted, part_of_labels
from training.layouts.splits import expect_some, names_of_split
from zoo_models.errors import ImageError
from zoo_models.prediction.images import read_labels


@dataclass(frozen=True)
class Masks:
    """A folder of masks of one nucleus each, as one label image."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def labels(self, wanted: Wanted) -> Part:
        paths = sorted(self.folder.glob("*.png"))
        masks = [read_labels(path) > 0 for path in paths]
        shapes = {mask.shape for mask in masks}
        if len(shapes) != 1:
            raise ImageError(
                f"{self.folder}: {len(paths)} masks of {len(shapes)} different sizes, expected at "
                "least one, all of the size of the image: copy the folder again"
            )
        labels = np.zeros(shapes.pop(), np.int32)
        for number in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
            labels[masks[number]] = number + 1
        return part_of_labels(labels, wanted, place=str(self))


def pairs(folder: Path, split: str) -> list[Pair]:
    """Images of a split and their nuclei.

    Raises:
        ImageError: no images, or splits.json does not fit.
    """
    root = folder / "stage1_train" if (folder / "stage1_train").is_dir() else folder
    found = expect_some(
        sorted(root.glob("*/images/*.png")),
        folder,
        pattern="stage1_train/ID/images/ID.png",
        layout="DSB 2018",
    )
    by_name = {path.parents[1].name: path for path in found}
    return [
        Pair(name, Photo(by_name[name]), Masks(by_name[name].parents[1] / "masks"))
        for name in names_of_split(folder, split, by_name)
    ]
