"""What one run does, written down before it begins, so that it can be taken up after a kill.

OUT/cells_labels.ome.zarr.job/       while it runs; removed at the end
+- job.json                          this file: what was asked for, what was chosen
+- scratch/                          what the steps keep (scratch.py)
+- labels.ome.zarr  embeddings.ome.zarr   become OUT/cells_labels.ome.zarr, ... at the end
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from zoo_models.errors import InputError, OutputExistsError
from zoo_models.geometry import Box
from zoo_models.prediction.clustering import ClustererOptions
from zoo_models.prediction.passes import partition
from zoo_models.prediction.source import Place

NAME = "job.json"


@dataclass(frozen=True)
class Request:
    """All that decides what comes out; a run is only taken up where all of it is the same.

    Attributes:
        package: sha256 of the package; clusterer: what is asked for in place of its own.
        image, image_state: where it is, and its fingerprint. mask, mask_state: the same.
        engine, precision, device, tile, memory: as asked for; None: to be chosen.
        labels, table, embeddings: formats of what is written; None: not written.
    """

    package: str
    clusterer: ClustererOptions
    image: Place
    image_state: str
    mask: Place | None
    mask_state: str | None
    engine: str
    precision: str
    device: str
    tile: int | None
    memory: int | None
    labels: Literal["ome-tiff", "ome-zarr"]
    table: Literal["csv", "parquet"] | None
    embeddings: Literal["float32", "float16"] | None


@dataclass(frozen=True)
class Choice:
    """What was chosen once, by measuring, and stays.

    Attributes:
        engine: runs the network, on a CPU with `threads`. tile: (z)yx pixels into it, `batch` at a
            time.
        block: (z)yx pixels of one unit of work. chunk: (z)yx pixels of a file of labels.
        whole: the clusterer needs the image in one piece, so there is one block.
    """

    engine: str
    threads: int
    tile: tuple[int, ...]
    batch: int
    block: tuple[int, ...]
    chunk: tuple[int, ...]
    whole: bool


@dataclass(frozen=True)
class Job:
    """shape, axes, voxel_size_um: of the space axes. stack: name and size of each axis before."""

    request: Request
    choice: Choice
    package: Path
    axes: str
    shape: tuple[int, ...]
    stack: tuple[tuple[str, int], ...]
    voxel_size_um: tuple[float, ...] | None

    @property
    def blocks(self) -> list[Box]:
        return partition(self.shape, self.choice.block)

    @property
    def planes(self) -> Iterator[tuple[int, ...]]:
        """Index into the stack's axes of each image that is clustered by itself; () without."""
        return product(*(range(size) for _, size in self.stack))

    @property
    def origin(self) -> tuple[int, ...] | None:
        """First pixel (z)yx of the region in the whole image; None: it is the whole image."""
        region = self.request.image.region
        return None if region is None else tuple(start for start, _ in region)

    @property
    def all_axes(self) -> str:
        return "".join(name for name, _ in self.stack) + self.axes

    @property
    def full_shape(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.stack) + self.shape

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{NAME}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self), indent=1, default=str))
        draft.replace(folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Raises InputError: the file is not one that `save` wrote."""
        try:
            return TypeAdapter(cls).validate_json((folder / NAME).read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{folder / NAME}: is no plan of this version of spoco-zoo ({reason}); remove "
                f"{folder} to start anew."
            ) from error


def begun(folder: Path, request: Request, *, overwrite: bool) -> Job | None:
    """The job that a run in this folder began; None where there is none.

    Raises:
        OutputExistsError: one with another request, and it may not be overwritten.
    """
    if not (folder / NAME).exists():
        forget(folder)  # killed before it was written down, or while it was removed
        return None
    try:
        job = Job.load(folder)
        changed = differences(job.request, request)
    except InputError:
        if not overwrite:
            raise
        changed = ["a plan that cannot be read"]
    if not changed:
        return job
    if not overwrite:
        raise OutputExistsError(
            f"{folder}: a run was begun here with {'; '.join(changed)}; repeat it with what it was "
            "begun with, or start anew with --overwrite."
        )
    forget(folder)
    return None


def forget(folder: Path) -> None:
    """Remove a run; its plan first, so that what is half removed is not taken up."""
    (folder / NAME).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def differences(old: Request, new: Request) -> list[str]:
    """'NAME OLD, now NEW' of each entry that differs."""
    before, after = (json.loads(json.dumps(asdict(r), default=str)) for r in (old, new))
    return [
        f"{name.replace('_state', ' contents').replace('_', ' ')} {before[name]}, now {after[name]}"
        for name in before
        if before[name] != after[name]
    ]
