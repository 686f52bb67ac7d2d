"""Choose a clusterer's settings on annotated images: one setting after another, AP@0.5 decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import TrainingConfig
from training.datasets import Sample, read_data
from training.embedding import embeddings_of
from training.fit import CHECKPOINT, LAST
from training.module import background_place
from training.teacher import named_as_in
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import CheckpointError, ConfigError
from zoo_models.metrics import DatasetScores, aggregate, score
from zoo_models.postprocessing import build_clusterer

Embedded = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Embeddings D(z)yx of an image, and its true labels (z)yx."""

IMAGES = 18
"""At most so many images choose the settings: each is clustered some twenty times."""

ROUNDS = 2


def tune(run_dir: Path, config: TrainingConfig) -> Checkpoint:
    """The last weights of a finished or cut run, with the settings of `clusterer.tried` chosen.

    With and without the background's spread where the configuration leaves that open.

    Raises:
        CheckpointError: the folder holds no run.
        ImageError: the data cannot be read.
    """
    checkpoint = with_last_weights(run_dir, keep_teacher=config.keeps_teacher)
    return _chosen(checkpoint, config, config.spreads_tried)


def tune_checkpoint(checkpoint: Checkpoint, config: TrainingConfig) -> Checkpoint:
    """A checkpoint whose settings are chosen on other images than its own; its weights stay.

    Of the configuration `data` and `clusterer` count. Gain, offset, voxel size and settings that
    it names replace the checkpoint's. A background that has a spread gets it measured anew.

    Raises:
        ConfigError: the images have other axes than the network.
        ImageError: the data cannot be read.
    """
    if config.data.axes != checkpoint.axes:
        raise ConfigError(
            f"data.axes is {config.data.axes!r}, but the checkpoint is for images with the axes "
            f"{checkpoint.axes!r}: choose another one, or data that fit."
        )
    named = config.data.model_dump(include={"gain", "offset"}, exclude_unset=True)
    known, asked = checkpoint.clusterer, config.clusterer
    settings: dict[str, Any] = {"delta_v": checkpoint.delta_v, "delta_d": checkpoint.delta_d}
    if known.name == asked.name:
        settings = dict(known.settings)
    with_spread = asked.spread
    if with_spread is None:
        with_spread = bool(settings.get("spread"))
    settings.pop("spread", None)
    start = replace(
        checkpoint,
        normalisation=replace(checkpoint.normalisation, **named),
        voxel_size_um=config.data.voxel_size_um or checkpoint.voxel_size_um,
        clusterer=ClustererSettings(asked.name, {**settings, **asked.settings}),
        provenance={**checkpoint.provenance, "tuned_on": Path(config.data.folder).name},
    )
    return _chosen(start, config, (with_spread,))


def _chosen(checkpoint: Checkpoint, config: TrainingConfig, spreads: Sequence[bool]) -> Checkpoint:
    """The best of `tuned` with each of `spreads`, on the val split, at most IMAGES of it."""
    samples = read_data(config.data, "val", channels=checkpoint.in_channels)
    samples = samples[:: -(-len(samples) // IMAGES)]
    images = embedded(checkpoint, samples)
    tried = config.clusterer.tried
    found = [tuned(checkpoint, images, tried, with_spread=s) for s in spreads]
    return max(found, key=lambda c: c.provenance["validation"]["ap50"])


def with_last_weights(run_dir: Path, *, keep_teacher: bool = False) -> Checkpoint:
    """The run's checkpoint with the weights of its last step; on request the teacher's, too.

    The best of a few validations is mostly luck once the rate has fallen to zero, and while
    training they use clusterer settings that nobody has chosen yet.

    Raises:
        CheckpointError: the folder holds no run, or one without the teacher that is to be kept.
    """
    if not (run_dir / LAST).exists() or not (run_dir / CHECKPOINT).exists():
        raise CheckpointError(
            f"{run_dir}: found no {LAST} and {CHECKPOINT}, expected the folder of a training run."
        )
    state = torch.load(run_dir / LAST, weights_only=False)
    weights = _below("network.", state["state_dict"])
    teacher = _below("teacher.network.", state["state_dict"])
    if keep_teacher and not teacher:
        raise CheckpointError(
            f"{run_dir / LAST}: holds no teacher to keep; leave keep out of [teacher], or train "
            "with this configuration."
        )
    best = Checkpoint.load(run_dir / CHECKPOINT)
    return replace(
        best,
        weights=weights,
        teacher=named_as_in(best.network(), teacher) if keep_teacher else None,
        provenance={**best.provenance, "step": state["global_step"]},
    )


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def embedded(checkpoint: Checkpoint, samples: Sequence[Sample]) -> list[Embedded]:
    """Embeddings and truth of each image; all of them in memory."""
    labels = [sample.labels for sample in samples]
    return list(zip(embeddings_of(checkpoint, samples), labels, strict=True))


def tuned(
    checkpoint: Checkpoint,
    images: Sequence[Embedded],
    tried: Mapping[str, Sequence[float]],
    *,
    with_spread: bool = False,
) -> Checkpoint:
    """The checkpoint with the background's place and the settings that suit `images` best.

    `with_spread` measures the background's spread, too; a `radius` tried is then in its units.
    Coordinate search from the checkpoint's settings, twice through `tried` (setting -> values): the
    best value of each setting given the others, not the best of all combinations, but never worse
    than the first. Its scores go into the provenance.
    """
    best = {**checkpoint.clusterer.settings, "background": background(images)}
    if with_spread:
        best["spread"] = spread(images)
    known: dict[str, DatasetScores] = {}

    def scored(settings: Mapping[str, Any]) -> DatasetScores:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = scores_of(_with(checkpoint, settings), images)
        return known[key]

    for _ in range(ROUNDS):
        for name, values in tried.items():
            others = [{**best, name: v} for v in values]
            best = max([*others, best], key=lambda s: scored(s).ap50)
    validation = {"images": len(images), **scored(best).as_dict()}
    return replace(
        _with(checkpoint, best), provenance={**checkpoint.provenance, "validation": validation}
    )


def scores_of(checkpoint: Checkpoint, images: Sequence[Embedded]) -> DatasetScores:
    """Scores of the checkpoint's clusterer."""
    clusterer = build_clusterer(checkpoint.clusterer)
    return aggregate([score(clusterer(embeddings), truth) for embeddings, truth in images])


def background(images: Sequence[Embedded]) -> list[float]:
    """Where the background lies in embedding space, D values; empty without background."""
    return background_place(
        [e[:, truth == 0].mean(axis=1) for e, truth in images if (truth == 0).any()]
    )


def spread(images: Sequence[Embedded], ridge: float = 0.1) -> list[float]:
    """D * D numbers, row by row: (covariance + ridge * identity) ** -1/2 of the background.

    The covariance is that around `background(images)`; every image counts the same, however many
    background pixels it has. Empty without background.

    ridge: squared embedding units; it keeps dimensions that are nearly constant in the background
        from deciding alone. 0 takes a background that varies along every direction.
    """
    place = np.asarray(background(images))[:, None]
    each = []
    for embeddings, truth in images:
        if (truth == 0).any():
            pixels = embeddings[:, truth == 0] - place
            each.append(pixels @ pixels.T / pixels.shape[1])
    if not each:
        return []
    variances, directions = np.linalg.eigh(np.mean(each, axis=0) + ridge * np.eye(len(place)))
    root = (directions / np.sqrt(variances)) @ directions.T
    return [round(float(v), 4) for v in root.ravel()]


def _with(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Checkpoint:
    return replace(checkpoint, clusterer=ClustererSettings(checkpoint.clusterer.name, settings))
