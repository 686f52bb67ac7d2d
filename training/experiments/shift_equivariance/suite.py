"""All experiments by name: run one, keep what it gave, read it back when it was run before.

OUT/shift_equivariance/<quick|full>/<name>-seed<n>/   result.json, result.md, pictures
OUT/shift_equivariance/networks/<quick|full>/...      see learn.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.experiments.shift_equivariance import exact, figures, nuclei, synthetic
from training.experiments.shift_equivariance.learn import Progress
from training.experiments.shift_equivariance.measured import Conditions, Measured, table
from zoo_models.errors import InputError

FOLDER = "shift_equivariance"
RESULT = "result.json"


@dataclass(frozen=True)
class Experiment:
    """A figure of the paper, or a statement of its theory."""

    name: str
    title: str
    measure: Callable[[Conditions], Measured]


TITLES = {
    "fig2a": "Fig 2a: discs 2P apart share one embedding, and cannot be separated",
    "fig2b": "Fig 2b: at a co-prime spacing P^d discs are separated, learnt upsampling",
    "fig2c": "Fig 2c: the same with fixed upsampling",
    "fig4a": "Fig 4a: trained with windows of P pixels, tiles jump at the period grid",
    "fig4b": "Fig 4b: trained with larger windows, but stitched off the grid: false splits",
    "fig4c": "Fig 4c: the same network, tiles cropped to n * P: no false splits",
    "fig5": "Fig 5: in an image of ones each pixel of a period window has an id",
    "fig5-fixed": "Fig 5, counter-example: fixed upsampling gives one id",
    "supp2": "Supplement 2: zero padding gives ids where fixed upsampling had none",
    "supp3a": "Supplement 3a: noise, tiles cropped to n * P",
    "supp3b": "Supplement 3b: elastic changes, tiles cropped to n * P",
    "supp3c": "Supplement 3c: noise, tiles off the grid",
}
EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment("functions", "P^d output functions and the exact period", exact.functions),
        Experiment("capacity", "Instances told apart at every spacing", exact.capacity),
        *(Experiment(n, TITLES[n], measure) for n, measure in synthetic.EXPERIMENTS.items()),
        Experiment("fig6", "Fig 6: the width of tiles on real nuclei", nuclei.tile_widths),
    )
}


@dataclass(frozen=True)
class Result:
    """What an experiment left in its folder, without the pictures."""

    name: str
    title: str
    quick: bool
    seed: int
    data: bool
    seconds: float
    rows: Sequence[dict[str, Any]]
    statements: dict[str, bool]
    notes: Sequence[str]
    pictures: Sequence[str]

    def markdown(self) -> str:
        """Table, statements and notes."""
        how = f"{'quick' if self.quick else 'full'} settings, seed {self.seed}"
        lines = [f"### {self.title}", "", f"`{self.name}`, {how}.", "", table(self.rows), ""]
        lines += [
            f"- {'holds' if ok else 'DOES NOT HOLD'}: {s}." for s, ok in self.statements.items()
        ]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), ""])


def perform(
    name: str,
    out: Path,
    *,
    quick: bool,
    seed: int = 0,
    data: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run an experiment, or read what it gave when it was run before.

    Raises:
        InputError: no such experiment, or a kept network is of another setup.
        ImageError: data sets are missing.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"No experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}.")
    experiment = EXPERIMENTS[name]
    root = out / FOLDER
    uses_data = name == "fig6" and data is not None
    suffix = "-data" if uses_data else ""
    folder = root / ("quick" if quick else "full") / f"{name}-seed{seed}{suffix}"
    if (folder / RESULT).exists():
        return Result(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
    started = time.monotonic()
    measured = experiment.measure(Conditions(root / "networks", quick, seed, data, progress))
    folder.mkdir(parents=True, exist_ok=True)
    for file, picture in measured.pictures.items():
        if isinstance(picture, str):
            (folder / file).write_text(picture, encoding="utf-8")
        else:
            figures.write_png(folder / file, picture)
    result = Result(
        name=name,
        title=experiment.title,
        quick=quick,
        seed=seed,
        data=uses_data,
        seconds=round(time.monotonic() - started, 1),
        rows=[dict(row) for row in measured.rows],
        statements=dict(measured.statements),
        notes=list(measured.notes),
        pictures=list(measured.pictures),
    )
    (folder / "result.md").write_text(result.markdown(), encoding="utf-8")
    part = folder / (RESULT + ".part")
    part.write_text(json.dumps(asdict(result), indent=1, default=_plain), encoding="utf-8")
    os.replace(part, folder / RESULT)
    return result


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    return value.item()
