"""Fig. 6 on real nuclei: the width of tiles against false splits and AP@0.5, on and off the grid.

Nothing is trained: the catalog's networks answer, and two clusterers make instances of what they
say. `own` is the one that the model travels with; it compares neighbours. `mean-shift` is that of
the paper; it puts pixels with near embeddings together wherever they are.

Images are cut to their first SIDE pixels per axis, since mean-shift takes seconds for them. Tiles
mirror the image at its border, as prediction does, so the border costs every width the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.experiments.shift_equivariance import figures
from training.experiments.shift_equivariance.measured import Conditions, Measured
from training.experiments.shift_equivariance.stitching import (
    SAME,
    Array,
    Difference,
    Phases,
    in_tiles,
)
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint, ClustererSettings, answering_part, network_axes
from zoo_models.metrics import Scores, aggregate, score
from zoo_models.postprocessing import Clusterer, build_clusterer
from zoo_models.prediction.blocks import read_mirrored
from zoo_models.prediction.images import read_image, read_labels
from zoo_models.splits import data_file, split_names

MODELS = ("nuclei-fluo-2d", "nuclei-fluo-2d-discriminative")
SETS = ("dsb2018_fluo", "bbbc039")
EXAMPLE = "example"
"""In place of data sets where there are none: the catalog's one example image."""
SPLIT = "test"
SIDE = 256
CORNER = 64
"""Pixels per side in which real tiles are run: each reads far beyond what it keeps."""
WHOLE = 0
"""Stands for the width of one pass over the whole image."""


@dataclass(frozen=True)
class Extent:
    """Tile widths in periods, and on how many images of each set, spread over the split."""

    periods: Sequence[float]
    images: int


QUICK = Extent((2, 2.5, 3, 3.5, 4, 4.5), 2)
FULL = Extent(tuple(2 + n / 4 for n in range(9)), 8)


@dataclass(frozen=True)
class Sample:
    """An image cyx of raw values and its true labels yx."""

    image: Array
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Outcome:
    """Of one image, one tile width and one clusterer."""

    scores: Scores
    difference: Difference


def tile_widths(conditions: Conditions) -> Measured:
    """One row per model, data set, clusterer and tile width."""
    extent = QUICK if conditions.quick else FULL
    rows: list[dict[str, Any]] = []
    checks: list[float] = []
    for model in MODELS:
        checkpoint = Checkpoint.load(find_model(model).checkpoint)
        for name in SETS if conditions.data else (EXAMPLE,):
            found = samples(conditions.data, name, extent.images)
            rows += _rows(model, name, _outcomes(checkpoint, found, extent, conditions, model))
            checks.append(literal_difference(checkpoint, found[0]))
    notes = [
        "Largest difference: from one pass over the whole image, in standard deviations.",
        f"Images are cut to {SIDE} pixels per axis. Tiles are put together from one pass per "
        "phase, so those of n * P pixels are one pass over the whole. Real tiles, 4 and 4.5 "
        f"periods wide, of a corner of {CORNER} pixels of each set, differ from these by at most "
        f"{max(checks):.1e} standard deviations.",
    ]
    if conditions.data is None:
        notes.append("Without --data: the one example image of the catalog, so read no trend.")
    statements = {"real tiles answer as passes of their phases do": max(checks) <= SAME}
    for clusterer in dict.fromkeys(row["clusterer"] for row in rows):
        own = [row for row in rows if row["clusterer"] == clusterer]
        on, off = ([r for r in own if r["n * P"] is value] for value in (True, False))
        statements |= {
            f"{clusterer}: fewer false splits on n * P than off it": _mean(on, "false splits")
            < _mean(off, "false splits"),
            f"{clusterer}: a higher AP@0.5 on n * P than off it": _mean(on, "AP@0.5")
            > _mean(off, "AP@0.5"),
        }
    return Measured(rows, statements, _charts(rows), tuple(notes))


def samples(data: Path | None, name: str, number: int) -> list[Sample]:
    """At most `number` images of a data set's split, evenly spread over it; or the example.

    Raises:
        ImageError: no such data set, or files that cannot be read.
    """
    if data is None:
        folder = find_model(MODELS[0]).folder / "example"
        paths = [(folder / "image.tif", folder / "labels.tif")]
    else:
        names = split_names(data / name, SPLIT)
        chosen = names[:: -(-len(names) // number)]
        paths = [
            (data_file(data / name, "images", n), data_file(data / name, "labels", n))
            for n in chosen
        ]
    return [
        Sample(read_image(image).data[:, :SIDE, :SIDE], read_labels(labels)[:SIDE, :SIDE])
        for image, labels in paths
    ]


def clusterers(checkpoint: Checkpoint) -> Mapping[str, Clusterer]:
    """The model's own, and mean-shift with the same margins, background and smallest size."""
    own = checkpoint.clusterer.settings
    shared = {key: own[key] for key in ("background", "min_size") if key in own}
    margins = {"delta_v": checkpoint.delta_v, "delta_d": checkpoint.delta_d}
    return {
        "own": build_clusterer(checkpoint.clusterer),
        "mean-shift": build_clusterer(ClustererSettings("mean_shift", {**margins, **shared})),
    }


def phases_of(checkpoint: Checkpoint, sample: Sample) -> Phases:
    """Passes of the checkpoint's network over one image."""
    pixels = checkpoint.normalisation.apply(sample.image)
    return Phases(
        answering_part(checkpoint.network()),
        network_axes(checkpoint.architecture, checkpoint.kwargs)[0],
        lambda box: read_mirrored(pixels, box),
        sample.labels.shape,
    )


def by_tile(
    phases: Phases, methods: Mapping[str, Clusterer], truth: NDArray[np.integer], tile: int
) -> Iterator[tuple[str, Outcome]]:
    """Clusterer's name -> what one tile width, or WHOLE, gives."""
    whole = phases.one_pass((0, 0))
    answer = whole if tile == WHOLE else phases.in_tiles(tile)
    difference = Difference.between(answer, whole)
    for name, clusterer in methods.items():
        yield name, Outcome(score(clusterer(answer), truth), difference)


def literal_difference(checkpoint: Checkpoint, sample: Sample) -> float:
    """Between real tiles and `Phases`, the largest of a width on the grid and one off it."""
    corner = Sample(sample.image[:, :CORNER, :CORNER], sample.labels[:CORNER, :CORNER])
    phases = phases_of(checkpoint, corner)
    apart = []
    for tile in (4 * phases.axis.period, 4 * phases.axis.period + phases.axis.period // 2):
        real = in_tiles(phases.network, phases.axis, phases.read, phases.shape, tile)
        apart.append(Difference.between(real, phases.in_tiles(tile)).largest)
    return max(apart)


Outcomes = dict[tuple[str, int, bool], list[Outcome]]
"""Clusterer, tile width and whether it is n * P -> one outcome per image."""


def _outcomes(
    checkpoint: Checkpoint,
    found: Sequence[Sample],
    extent: Extent,
    conditions: Conditions,
    title: str,
) -> Outcomes:
    period = checkpoint.geometry.period[0]
    methods = clusterers(checkpoint)
    each: Outcomes = {}
    for done, sample in enumerate(found, start=1):
        phases = phases_of(checkpoint, sample)
        whole = dict(by_tile(phases, methods, sample.labels, WHOLE))
        for tile in (WHOLE, *(int(n * period) for n in extent.periods)):
            on_grid = tile % period == 0
            found_here = whole if on_grid else dict(by_tile(phases, methods, sample.labels, tile))
            for name, outcome in found_here.items():
                each.setdefault((name, tile, on_grid), []).append(outcome)
        if conditions.progress is not None:
            conditions.progress(title, done, len(found))
    return each


def _rows(model: str, data: str, outcomes: Outcomes) -> list[dict[str, Any]]:
    rows = []
    for (clusterer, tile, on_grid), each in sorted(outcomes.items()):
        overall = aggregate([outcome.scores for outcome in each])
        rows.append(
            {
                "model": model,
                "data": data,
                "images": len(each),
                "clusterer": clusterer,
                "tile": tile or "whole",
                "n * P": on_grid,
                "false splits": overall.false_splits,
                "AP@0.5": overall.ap50,
                "largest difference": max(o.difference.largest for o in each),
                "wrong pixels": float(np.mean([o.difference.wrong for o in each])),
            }
        )
    return rows


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Over tile widths; the whole image is none."""
    return float(np.mean([row[name] for row in rows if row["tile"] != "whole"]))


def _charts(rows: Sequence[dict[str, Any]]) -> dict[str, figures.Rgb | str]:
    """One chart per number and model, a curve per data set and clusterer."""
    charts: dict[str, figures.Rgb | str] = {}
    tiled = [row for row in rows if row["tile"] != "whole"]
    for model in MODELS:
        ours = [row for row in tiled if row["model"] == model]
        for number, short in (("false splits", "splits"), ("AP@0.5", "ap50")):
            curves: dict[str, list[tuple[float, float]]] = {}
            for row in ours:
                name = f"{row['data']}, {row['clusterer']}"
                curves.setdefault(name, []).append((row["tile"], row[number]))
            charts[f"fig6-{model}-{short}.svg"] = figures.chart(
                curves,
                title=f"{number}, {model}",
                across="width of tiles, pixels; grey: n * P",
                marked=sorted({row["tile"] for row in ours if row["n * P"]}),
            )
    return charts
