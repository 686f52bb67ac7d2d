"""What the contenders of benchmarks/clustering.py get: synthetic scenes, and the images of models.

Embeddings and truths are written to a folder, since every contender is a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from clustering_contenders import COMPILED, PEERS
from numpy.typing import NDArray

from zoo_models.catalog import CatalogModel
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.engine import TILE_LIMIT, predict_embeddings
from zoo_models.prediction.images import read_image, read_labels
from zoo_models.splits import data_file, split_names
from zoo_models.synthetic_embeddings import Scene, synthesise

Paths = tuple[str, str, str]

PIXELS_PER_INSTANCE = {2: 2000, 3: 6500}
"""By number of space axes: 100 instances in 448 x 448 or 40 x 128 x 128 pixels."""

MIN_SIZE = 20
"""Of scenes; models have their own. Pixels."""


@dataclass(frozen=True)
class Case:
    """One input: images in files (as Job.images), and what is known of their embeddings.

    clusterer: the model's own, or no name but the settings that all methods take.
    pixels: of the largest image.
    """

    name: str
    images: tuple[Paths, ...]
    clusterer: ClustererSettings
    delta_v: float
    delta_d: float
    pixels: int

    @property
    def has_teacher(self) -> bool:
        return all(teacher for _, _, teacher in self.images)

    def settings(self, contender: str, *, background_known: bool) -> dict[str, Any]:
        """The model's own for its own method; all other methods derive theirs from the margins."""
        own = dict(self.clusterer.settings)
        if contender.removesuffix(COMPILED) != self.clusterer.name:
            own = {key: own[key] for key in ("min_size", "background")}
        if not background_known:
            own = {key: own[key] for key in own if key not in ("background", "spread")}
        return {**_margins(contender, self.delta_v, self.delta_d), **own}


def scene_settings(contender: str) -> dict[str, Any]:
    """What a scene tells but for its background; see Case.settings."""
    return {**_margins(contender, 0.5, Scene.delta_d), "min_size": MIN_SIZE}


def _margins(contender: str, delta_v: float, delta_d: float) -> dict[str, float]:
    """delta_v is not asked for by the libraries."""
    return {"delta_d": delta_d} if contender in PEERS else {"delta_v": delta_v, "delta_d": delta_d}


def scene_of_size(size: str, noise: Mapping[str, Any]) -> Scene:
    """Of 448x448 or 40x128x128 pixels; `noise` has the scene's other arguments."""
    shape = tuple(int(n) for n in size.split("x"))
    return Scene(shape, max(1, math.prod(shape) // PIXELS_PER_INSTANCE[len(shape)]), **noise)


def synthetic_case(scene: Scene, folder: Path, *, teacher: bool) -> Case:
    name = "x".join(map(str, scene.shape))
    drawn = synthesise(scene)
    files = [_saved(folder, name, drawn.embeddings), _saved(folder, f"{name} truth", drawn.truth)]
    means = drawn.means
    del drawn
    files.append("")
    if teacher:
        second = synthesise(replace(scene, view=1)).embeddings
        files[2] = _saved(folder, f"{name} teacher", second)
    shared = {"background": means[0].tolist(), "min_size": MIN_SIZE}
    return Case(
        name=f"{name}, {len(means) - 1} {scene.kind}",
        images=((files[0], files[1], files[2]),),
        clusterer=ClustererSettings("", shared),
        delta_v=0.5,
        delta_d=scene.delta_d,
        pixels=math.prod(scene.shape),
    )


def model_case(model: CatalogModel, data: Path, folder: Path, *, count: int) -> Case:
    """`count` validation images, evenly from the list, of the data set the model was trained on.

    Raises:
        ImageError: the data set is not in `data`.
    """
    checkpoint = Checkpoint.load(model.checkpoint)
    source = data / str(checkpoint.provenance["data"])
    names = split_names(source, "val")
    chosen = [names[i * len(names) // count] for i in range(min(count, len(names)))]
    images, pixels = [], 0
    for name in chosen:
        truth = read_labels(data_file(source, "labels", name))
        image = read_image(data_file(source, "images", name)).data
        answers = [_saved(folder, f"{model.name} {name}", _embedded(checkpoint, image))]
        answers.append(_saved(folder, f"{model.name} {name} truth", truth))
        answers.append("")
        if checkpoint.teacher is not None:
            answers[2] = _saved(
                folder, f"{model.name} {name} teacher", _embedded(checkpoint, image, teacher=True)
            )
        images.append((answers[0], answers[1], answers[2]))
        pixels = max(pixels, truth.size)
    return Case(
        name=f"{model.name}, {len(chosen)} of {source.name}",
        images=tuple(images),
        clusterer=checkpoint.clusterer,
        delta_v=checkpoint.delta_v,
        delta_d=checkpoint.delta_d,
        pixels=pixels,
    )


def _embedded(
    checkpoint: Checkpoint, image: NDArray[np.float32], *, teacher: bool = False
) -> NDArray[np.float32]:
    """As `spoco-zoo predict` computes them."""
    network = checkpoint.teacher_network() if teacher else checkpoint.network()
    limit = TILE_LIMIT[checkpoint.geometry.ndim]
    return predict_embeddings(
        network,
        checkpoint.normalisation.apply(image),
        BlockGrid.covering(image.shape[1:], checkpoint.geometry, tile_limit=limit),
        embedding_dim=checkpoint.embedding_dim,
    )


def _saved(folder: Path, name: str, array: NDArray[Any]) -> str:
    path = folder / f"{name}.npy"
    np.save(path, array)
    return str(path)
