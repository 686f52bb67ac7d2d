"""How annotated images lie on a disk: one file per layout, all with the same function.

    pairs(folder, split)  ->  [Pair(name, image source, label source), ...]     nothing is read yet
    source.image(wanted), source.labels(wanted)  ->  Part                       read, checked, cut

training/datasets.py turns pairs into samples. docs/data.md is the table for users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.layouts import (
    bbbc006,
    cityscapes,
    cvppp,
    dsb2018,
    folders,
    mitoem,
    nuclei3d,
    ovules,
    stem,
    vnc,
)
from training.layouts.sources import Pair


@dataclass(frozen=True)
class Layout:
    """`axes` of its images, None where they may be 'yx' or 'zyx'."""

    pairs: Callable[[Path, str], list[Pair]]
    axes: str | None


LAYOUTS = {
    "folders": Layout(folders.pairs, None),
    "cvppp": Layout(cvppp.pairs, "yx"),
    "cityscapes": Layout(cityscapes.pairs, "yx"),
    "ovules": Layout(ovules.pairs, "zyx"),
    "stem": Layout(stem.pairs, "zyx"),
    "vnc": Layout(vnc.pairs, "zyx"),
    "mitoem": Layout(mitoem.pairs, "zyx"),
    "bbbc006": Layout(bbbc006.pairs, "yx"),
    "dsb2018": Layout(dsb2018.pairs, "yx"),
    "nuclei3d": Layout(nuclei3d.pairs, "zyx"),
}
"""All but "volumes", whose paths are in the configuration (volumes.py)."""
