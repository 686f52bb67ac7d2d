"""VNC: mitochondria of the Drosophila larva ventral nerve cord, serial-section EM (zyx).

    FOLDER                     the repository groundtruth-drosophila-vnc
    ├── stack1/
    │   ├── raw/           00.tif ... 19.tif
    │   └── mitochondria/  00.png ... 19.png: a mask
    └── stack2/raw/        without labels; not read

The masks do not tell mitochondria apart: instances are the connected components, in 3D, corners
included, of the sections of a split. Mitochondria that touch are one instance.

Splits as the authors suggest: 80 % of the sections (the first) are train, the rest val; stack 2,
their test, has no labels. Neighbouring sections look alike: [data.crop] can keep the splits apart
in the plane, too.
"""

from __future__ import annotations

from pathlib import Path

from training.layouts.sources import Derived, Pair, Sections, components
from training.layouts.splits import expect_some, no_labels
from zoo_models.errors import ImageError


def pairs(folder: Path, split: str) -> list[Pair]:
    """The part of stack 1 that is a split, one volume, and its mitochondria.

    Raises:
        ImageError: the split is test, no sections, or sections without a mask.
    """
    if split == "test":
        raise no_labels(folder, split, layout="VNC", known="train or val")
    raw, masks = folder / "stack1" / "raw", folder / "stack1" / "mitochondria"
    images = expect_some(
        sorted(raw.glob("*.tif")), folder, pattern="stack1/raw/*.tif", layout="VNC"
    )
    labels = sorted(masks.glob("*.png"))
    alone = sorted({p.stem for p in images} ^ {p.stem for p in labels})
    if alone:
        raise ImageError(
            f"{folder / 'stack1'}: sections {', '.join(alone[:3])} ({len(alone)} in all) are in "
            "only one of raw/ and mitochondria/, expected both: copy the data again"
        )
    cut = len(images) * 4 // 5
    part = slice(None, cut) if split == "train" else slice(cut, None)
    return [
        Pair(
            f"stack1-{split}",
            Sections(tuple(images[part])),
            Derived(Sections(tuple(labels[part])), components),
        )
    ]
