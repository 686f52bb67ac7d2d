"""What an experiment is given, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.experiments.shift_equivariance.figures import Rgb
from training.experiments.shift_equivariance.learn import Progress

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Conditions:
    """Under which an experiment runs.

    Attributes:
        networks: folder of trained networks, shared by experiments.
        quick: minutes on a laptop instead of the paper's sizes.
        data: folder that holds one folder per data set; None: there is none.
    """

    networks: Path
    quick: bool
    seed: int = 0
    data: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Measured:
    """Numbers and pictures of one experiment.

    Attributes:
        rows: of the table; the keys of the first are its headings.
        statements: what the theory says about these rows -> whether they do.
        pictures: file name -> RGB picture (.png) or SVG text (.svg).
        notes: what a reader of the numbers has to know.
    """

    rows: Sequence[Row]
    statements: Mapping[str, bool]
    pictures: Mapping[str, Rgb | str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_cell(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)
