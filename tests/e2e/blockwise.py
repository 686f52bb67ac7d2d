"""An image in blocks of a chosen size; as a program, for tests that kill it.

    python -m tests.e2e.blockwise PACKAGE IMAGE OUT

It imports nothing of the tests' own, which would take longer than the blocks.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from zoo_models.prediction.job import Job
from zoo_models.prediction.predict import Options, Predictor
from zoo_models.prediction.schedule import Done, Threads
from zoo_models.prediction.source import Place
from zoo_models.prediction.stream import Targets


def ignore(done: Done) -> None:
    pass


def in_blocks(job: Job, edge: int = 64) -> Job:
    """The same work in blocks of `edge` pixels."""
    return replace(job, choice=replace(job.choice, block=(edge, edge), chunk=(32, 32)))


def outputs(folder: Path, suffix: str = "tif") -> Targets:
    return Targets(
        folder / f"labels.ome.{suffix}", folder / "objects.csv", folder / "embeddings.ome.zarr"
    )


def segmented(
    package: Path, image: Path, out: Path, *, edge: int = 64, labels: str = "ome-tiff"
) -> Path:
    """The labels' path, after a run in blocks with all outputs there are."""
    options = Options(
        threads=1,
        table="csv",
        embeddings="float32",
        labels=labels,  # type: ignore[arg-type]
    )
    predictor = Predictor(package, options)
    targets = outputs(out, "tif" if labels == "ome-tiff" else "zarr")
    job = predictor.prepare(Place(str(image)), None, targets)
    predictor.run(in_blocks(job, edge), targets, Threads(2, ignore))
    return targets.labels


if __name__ == "__main__":
    segmented(*map(Path, sys.argv[1:]), labels="ome-zarr")
