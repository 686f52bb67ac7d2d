"""Folders of TIFF or PNG files: images/NAME.tif, labels/NAME.tif and splits.json.

FOLDER
├── images/      NAME.tif, .tiff or .png
├── labels/      NAME.tif, .tiff or .png: 0 is background, one number per object
└── splits.json  {"train": [NAME, ...], "val": [NAME, ...]}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.layouts.sources import ImageFile, Pair, Part, Wanted
from zoo_models.splits import data_file, split_names


@dataclass(frozen=True)
class NamedFile:
    """The file of a name, whatever its suffix; looked for when it is read."""

    folder: Path
    kind: str
    name: str

    def __str__(self) -> str:
        return str(data_file(self.folder, self.kind, self.name))

    def image(self, wanted: Wanted) -> Part:
        return ImageFile(data_file(self.folder, self.kind, self.name)).image(wanted)

    def labels(self, wanted: Wanted) -> Part:
        return ImageFile(data_file(self.folder, self.kind, self.name)).labels(wanted)


def pairs(folder: Path, split: str) -> list[Pair]:
    """The images of a split and their labels.

    Raises:
        ImageError: no splits.json, not JSON, or the split is missing or empty.
    """
    return [
        Pair(name, NamedFile(folder, "images", name), NamedFile(folder, "labels", name))
        for name in split_names(folder, split)
    ]
