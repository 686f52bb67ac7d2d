"""MitoEM: mitochondria in rat (R) and human (H) cortex, electron microscopy, 1000 sections (zyx).

    FOLDER                     a volume as unpacked, or a folder of such folders
    ├── im/             im0000.png ... im0999.png
    ├── mito-train-v2/  seg0000.tif ... seg0399.tif: one number per mitochondrion, 0 is background
    └── mito-val-v2/    seg0400.tif ... seg0499.tif

Also read are the names of the archives: EM30-R-im/ (with or without im/ in it) beside
EM30-R-mito-train-val-v2/mito-train-v2/, and the same with H.

Splits as published: the sections that have labels; the labels of test are withheld. A volume has
16.8 million voxels per section: [data.crop] takes a part of it, and only that part is read.
"""

from __future__ import annotations

from pathlib import Path

from training.layouts.sources import Pair, Sections
from training.layouts.splits import expect_some, no_labels
from zoo_models.errors import ImageError


def pairs(folder: Path, split: str) -> list[Pair]:
    """The labelled sections of a split, one volume for each of the animals that is there.

    Raises:
        ImageError: the split is test, no labels, or labels without an image.
    """
    if split == "test":
        raise no_labels(folder, split, layout="MitoEM", known="train or val")
    places = [place for place in _places(folder, split) if place[1].is_dir()]
    expect_some(
        [labels for _, labels in places], folder, pattern=f"mito-{split}-v2/", layout="MitoEM"
    )
    return [_volume(images, labels) for images, labels in places]


def _places(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """Folders of images and of labels, where they may be."""
    labels = f"mito-{split}-v2"
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    places = [(place / "im", place / labels) for place in (folder, *inner) if _is_volume(place)]
    for animal in "HR":
        images = folder / f"EM30-{animal}-im"
        nested = images / "im"
        archive = folder / f"EM30-{animal}-mito-train-val-v2"
        places.append((nested if nested.is_dir() else images, archive / labels))
    return places


def _is_volume(place: Path) -> bool:
    return (place / "im").is_dir() and not place.name.startswith("EM30-")


def _volume(images: Path, labels: Path) -> Pair:
    segmented = expect_some(
        sorted(labels.glob("seg*.tif")), labels, pattern="seg*.tif", layout="MitoEM"
    )
    sections = [images / f"im{path.stem.removeprefix('seg')}.png" for path in segmented]
    missing = [path.name for path in sections if not path.is_file()]
    if missing:
        raise ImageError(
            f"{images}: no {', '.join(missing[:3])} ({len(missing)} sections in all), but {labels} "
            "labels them: unpack the images there"
        )
    return Pair(labels.parent.name, Sections(tuple(sections)), Sections(tuple(segmented)))
