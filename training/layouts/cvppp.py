"""CVPPP 2017 Leaf Segmentation Challenge: RGB photographs of plants, every leaf an instance.

    FOLDER                     CVPPP2017_LSC_training, its training/, or one of A1 to A4 in it
    └── (training/)
        └── A1/ ... A4/
            ├── plant001_rgb.png      RGB, in some parts with a constant alpha, which is left out
            ├── plant001_label.png    palette PNG: the index is the leaf, 0 is background
            └── plant001_fg.png       the foreground; not read

The labels of testing/ are withheld, and there is no published validation split: names
(A1/plant001, inside A1 plant001) are split by splits.json, else as splits.py says. The parts
differ in image size. SPOCO was trained on A1 alone (README of its authors' repository).
"""

from __future__ import annotations

from pathlib import Path

from training.layouts.sources import ImageFile, Pair, Photo
from training.layouts.splits import expect_some, names_of_split

RGB, LABEL = "_rgb.png", "_label.png"


def pairs(folder: Path, split: str) -> list[Pair]:
    """Photographs of a split and their leaves.

    Raises:
        ImageError: no photographs, or splits.json does not fit.
    """
    root = folder / "training" if (folder / "training").is_dir() else folder
    found = expect_some(
        sorted(root.glob(f"*{RGB}")) or sorted(root.glob(f"A[0-9]/*{RGB}")),
        folder,
        pattern=f"A1/*{RGB}",
        layout="CVPPP 2017 LSC",
    )
    names = [path.relative_to(root).as_posix().removesuffix(RGB) for path in found]
    return [
        Pair(name, Photo(root / f"{name}{RGB}"), ImageFile(root / f"{name}{LABEL}"))
        for name in names_of_split(folder, split, names)
    ]
