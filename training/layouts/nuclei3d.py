"""nuclei3d: nuclei of C. elegans L1 larvae, 28 confocal volumes (zyx, 8 bit).

    FOLDER                     c_elegans_nuclei, as unpacked
    ├── train/
    │   ├── images/  C18G1_2L1_1.tif
    │   └── masks/   C18G1_2L1_1.tif: one number per nucleus, 0 is background
    ├── val/
    └── test/

The set is known as nuclei3d from the experiments of Hirsch, Mais and Kainmueller (PatchPerPix);
published is Zenodo 5942575, with the splits of Weigert et al. 2020: 18, 3 and 7 volumes. A
splits.json, where there is one, chooses some names (files without suffix) of each split.
"""

from __future__ import annotations

from pathlib import Path

from training.layouts.sources import ImageFile, Pair
from training.layouts.splits import expect_some, listed


def pairs(folder: Path, split: str) -> list[Pair]:
    """Volumes of a split and their nuclei.

    Raises:
        ImageError: no volumes, or splits.json does not fit.
    """
    images, masks = folder / split / "images", folder / split / "masks"
    found = expect_some(
        sorted(images.glob("*.tif")),
        folder,
        pattern=f"{split}/images/*.tif",
        layout="nuclei3d (c_elegans_nuclei)",
    )
    return [
        Pair(name, ImageFile(images / f"{name}.tif"), ImageFile(masks / f"{name}.tif"))
        for name in listed(folder, split, [path.stem for path in found])
    ]
