"""Fig. 6 on real nuclei: the width of tiles against false splits and AP@0.5, on and off the grid.

The catalog's networks answer, and their own clusterers make instances; nothing is trained. Tiles
mirror the image at its border, as prediction does, so the border costs every width the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.experiments.shift_equivariance import figures
from training.experiments.shift_equivariance.measured import Conditions, Measured
from training.experiments.shift_equivariance.stitching import Array, Difference, Phases
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint, answering_part, network_axes
from zoo_models.metrics import Scores, aggregate, score
from zoo_models.postprocessing import Clusterer, build_clusterer
from zoo_models.prediction.blocks import read_mirrored
from zoo_models.prediction.images import read_image, read_labels
from zoo_models.splits import data_file, split_names

MODELS = ("nuclei-fluo-2d", "nuclei-fluo-2d-discriminative")
SETS = ("dsb2018_fluo", "bbbc039")
SPLIT = "test"


@dataclass(frozen=True)
class Extent:
    """Which tile widths are tried, on how many images of each set, spread over the split."""

    tiles: Sequence[int]
    images: int


QUICK = Extent((20, 24, 28, 32, 36, 40, 44, 48, 56, 60, 64), 3)
FULL = Extent(tuple(range(16, 66, 2)), 40)


@dataclass(frozen=True)
class Sample:
    """An image cyx of raw values and its true labels yx."""

    image: Array
    labels: NDArray[np.integer]


def tile_widths(conditions: Conditions) -> Measured:
    """One row per model, data set and tile width."""
    extent = QUICK if conditions.quick else FULL
    rows: list[dict[str, Any]] = []
    for model in MODELS:
        for name in SETS if conditions.data else ("the catalog's example",):
            rows += _of_model(model, name, extent, conditions)
    notes = ["Largest difference: from one pass over the whole image, in standard deviations."]
    if conditions.data is None:
        notes.append("Without --data: the one example image of the catalog, so read no trend.")
    on, off = ([r for r in rows if r["n * P"] is value] for value in (True, False))
    return Measured(
        rows,
        {
            "tiles of n * P pixels give the labels of the whole image": all(
                r["AP@0.5"] == r["AP@0.5 whole"] and r["false splits"] == r["false splits whole"]
                for r in on
            ),
            "false splits: fewer on n * P than off it": _mean(on, "false splits")
            < _mean(off, "false splits"),
            "AP@0.5: higher on n * P than off it": _mean(on, "AP@0.5") > _mean(off, "AP@0.5"),
        },
        _charts(rows),
        tuple(notes),
    )


def samples(folder: Path, number: int) -> list[Sample]:
    """At most `number` images of the split, evenly spread over its list.

    Raises:
        ImageError: no such data set, or files that cannot be read.
    """
    names = split_names(folder, SPLIT)
    chosen = names[:: -(-len(names) // number)]
    return [
        Sample(
            read_image(data_file(folder, "images", name)).data,
            read_labels(data_file(folder, "labels", name)),
        )
        for name in chosen
    ]


def _of_model(
    model: str, name: str, extent: Extent, conditions: Conditions
) -> list[dict[str, Any]]:
    entry = find_model(model)
    checkpoint = Checkpoint.load(entry.checkpoint)
    if conditions.data is None:
        folder = find_model(MODELS[0]).folder / "example"
        found = [Sample(read_image(folder / "image.tif").data, read_labels(folder / "labels.tif"))]
    else:
        found = samples(conditions.data / name, extent.images)
    clusterer = build_clusterer(checkpoint.clusterer, compiled=True)
    each: dict[int, list[tuple[Scores, Difference]]] = {}
    for done, sample in enumerate(found, start=1):
        for tile, result in by_tile(checkpoint, clusterer, sample, (0, *extent.tiles)).items():
            each.setdefault(tile, []).append(result)
        if conditions.progress is not None:
            conditions.progress(f"{model} on {name}", done, len(found))
    whole = aggregate([scores for scores, _ in each.pop(0)])
    period = checkpoint.geometry.period[0]
    rows = []
    for tile, results in each.items():
        overall = aggregate([scores for scores, _ in results])
        rows.append(
            {
                "model": model,
                "data": name,
                "images": len(found),
                "tile": tile,
                "n * P": tile % period == 0,
                "false splits": overall.false_splits,
                "false splits whole": whole.false_splits,
                "AP@0.5": overall.ap50,
                "AP@0.5 whole": whole.ap50,
                "largest difference": max(d.largest for _, d in results),
                "wrong pixels": float(np.mean([d.wrong for _, d in results])),
            }
        )
    return rows


def by_tile(
    checkpoint: Checkpoint, clusterer: Clusterer, sample: Sample, tiles: Sequence[int]
) -> dict[int, tuple[Scores, Difference]]:
    """Scores of one image by the width of tiles, 0: one pass; and how far it is from one pass."""
    pixels = checkpoint.normalisation.apply(sample.image)
    axis = network_axes(checkpoint.architecture, checkpoint.kwargs)[0]
    phases = Phases(
        answering_part(checkpoint.network()),
        axis,
        lambda box: read_mirrored(pixels, box),
        sample.labels.shape,
    )
    whole = phases.one_pass((0, 0))
    results = {}
    for tile in tiles:
        answer = phases.in_tiles(tile) if tile else whole
        results[tile] = (
            score(clusterer(answer), sample.labels),
            Difference.between(answer, whole),
        )
    return results


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _charts(rows: Sequence[dict[str, Any]]) -> dict[str, figures.Rgb | str]:
    """One chart per number and data set, a curve per model."""
    charts: dict[str, figures.Rgb | str] = {}
    marked = sorted({row["tile"] for row in rows if row["n * P"]})
    for data in dict.fromkeys(row["data"] for row in rows):
        for number, short in (("false splits", "splits"), ("AP@0.5", "ap50")):
            curves = {
                model: [
                    (row["tile"], row[number])
                    for row in rows
                    if (row["model"], row["data"]) == (model, data)
                ]
                for model in MODELS
            }
            file = f"fig6-{data if '_' in data or data in SETS else 'example'}-{short}.svg"
            charts[file] = figures.chart(
                curves,
                title=f"{number}, {data}",
                across="width of tiles, pixels; grey: n * P",
                marked=marked,
            )
    return charts
