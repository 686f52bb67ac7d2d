"""What a run will do, in numbers and in words: `spoco-zoo predict --dry-run`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.job import Job
from zoo_models.prediction.layout import network_seconds
from zoo_models.prediction.predict import Predictor


def facts_of(job: Job, predictor: Predictor) -> dict[str, Any]:
    """Plain values, for JSON. `seconds` is None where nothing was measured, for small images."""
    choice, geometry = job.choice, predictor.package.geometry
    blocks, images = job.blocks, math.prod(size for _, size in job.stack)
    pixels = images * math.prod(job.shape)
    grid = BlockGrid(job.shape, choice.tile, geometry)
    calibration = predictor.calibration
    seconds = None
    if calibration is not None:
        seconds = network_seconds(calibration, geometry, job.shape, choice.block, choice.tile)
    return {
        "image": job.request.image.path,
        "axes": job.all_axes,
        "shape": list(job.full_shape),
        "package": str(job.package),
        "engine": choice.engine,
        "threads": choice.threads,
        "precision": job.request.precision,
        "device": job.request.device,
        "tile": list(choice.tile),
        "halo": list(geometry.halo),
        "kept": list(grid.kept),
        "period": list(geometry.period),
        "batch": choice.batch,
        "block": [min(b, n) for b, n in zip(choice.block, job.shape, strict=True)],
        "blocks": images * len(blocks),
        "in_one_piece": choice.whole,
        "bytes_read": pixels * predictor.package.in_channels * 4,
        "bytes_of_labels": pixels * 4,
        "bytes_of_embeddings": _embedding_bytes(job, predictor, pixels),
        "seconds": None if seconds is None else round(seconds * images, 1),
    }


def in_words(facts: dict[str, Any], labels: Path) -> str:
    """A few lines for people."""
    seconds = facts["seconds"]
    lines = [
        f"{facts['image']}: {_size(facts['shape'])} pixels ({facts['axes']}) -> {labels}",
        f"  tiles   {_size(facts['tile'])}, {facts['batch']} at a time; halo {_size(facts['halo'])}"
        f" cropped per side, {_size(facts['kept'])} kept, on the grid of {_size(facts['period'])}",
        f"  blocks  {facts['blocks']} of {_size(facts['block'])}"
        + (", as the method needs the image in one piece" if facts["in_one_piece"] else ""),
        f"  network {facts['engine']}, {facts['precision']}, {facts['device']}",
        f"  labels  {_bytes(facts['bytes_of_labels'])} before compression"
        + (
            f"; embeddings {_bytes(facts['bytes_of_embeddings'])}"
            if facts["bytes_of_embeddings"]
            else ""
        ),
        "  time    not measured: the image is small"
        if seconds is None
        else f"  time    about {_duration(seconds)} in the network",
    ]
    return "\n".join(lines)


def _embedding_bytes(job: Job, predictor: Predictor, pixels: int) -> int:
    width = {None: 0, "float16": 2, "float32": 4}[job.request.embeddings]
    return pixels * width * predictor.package.embedding_dim


def _size(edges: list[int]) -> str:
    return " x ".join(map(str, edges))


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
