"""One image of any size, from its file to label files: in blocks, taken up again after a kill.

    image ──▶ read a block and MARGIN more ──▶ network, tile by tile ──▶ fragments ─┐  pass 1
                                                                                    ▼
    labels ◀── paint ◀── numbers ◀── which parts are one instance ◀── parts ◀── groups    2, 3

Nothing here is as large as the image but the files; see passes.py for what is kept between steps.
"""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.checkpoint import ClustererSettings
from zoo_models.geometry import Box
from zoo_models.package import Package
from zoo_models.postprocessing import build_clusterer
from zoo_models.postprocessing.basin_merging import BasinMerging, Labels
from zoo_models.prediction.clustering import EmbeddingSpace, instances
from zoo_models.prediction.embedding_store import EmbeddingStore
from zoo_models.prediction.enclosed import BlockFragments, all_enclosed, finish_enclosed
from zoo_models.prediction.engine import embeddings_of
from zoo_models.prediction.engine_pool import EnginePool
from zoo_models.prediction.fragments import fragments
from zoo_models.prediction.job import Job, forget
from zoo_models.prediction.label_store import LabelStore
from zoo_models.prediction.labels import write_labels
from zoo_models.prediction.object_table import (
    ObjectSums,
    merged_in_portions,
    partial_table,
    write_table,
)
from zoo_models.prediction.passes import Arrays, Passes, cluster_blocks, grown, written
from zoo_models.prediction.schedule import Schedule
from zoo_models.prediction.scratch import ScratchFolder
from zoo_models.prediction.source import open_source

LABELS, EMBEDDINGS, PUBLISHED = "labels.ome.zarr", "embeddings.ome.zarr", "published"


@dataclass(frozen=True)
class Targets:
    """Where the outputs are to appear; None: not asked for."""

    labels: Path
    table: Path | None
    embeddings: Path | None

    @property
    def folder(self) -> Path:
        """Of the run, while it lasts."""
        return self.labels.with_name(self.labels.name + ".job")


NO_BLOCKS = ClustererSettings("basin_merging")
"""Joins the tables of a method that has none: it clusters one block, which is the image."""

CLUSTERING = threading.Lock()
"""One block is clustered at a time: the compiled loops have threads of their own."""


def streams(space: EmbeddingSpace) -> bool:
    """Whether blocks can be clustered one by one; other methods need the image in one piece."""
    clusterer = build_clusterer(space.clusterer)
    return isinstance(clusterer, BasinMerging) and len(clusterer.background) > 0


class Worker:
    """What does the blocks of a job, in this process; opens the image, the network, the outputs."""

    def __init__(self, job: Job, folder: Path, package: Package, engines: EnginePool) -> None:
        self.job = job
        self.folder = folder
        self.package = package
        self.engines = engines
        self.whole = build_clusterer(package.space.clusterer)
        known = package.space.clusterer if streams(package.space) else NO_BLOCKS
        clusterer = build_clusterer(known, compiled=True)
        assert isinstance(clusterer, BasinMerging)
        self.clusterer = clusterer
        ndim = len(job.shape)
        self.image = open_source(job.request.image, ndim=ndim)
        mask = job.request.mask
        self.mask = None if mask is None else open_source(mask, ndim=ndim)
        self.labels = LabelStore.open(folder / LABELS)
        kept = job.request.embeddings is not None
        self.embeddings = EmbeddingStore.open(folder / EMBEDDINGS) if kept else None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        for source in (self.image, self.mask):
            if source is not None:
                source.close()

    def passes(self, at: tuple[int, ...]) -> Passes:
        """The steps for one plane of the stack."""
        return Passes(
            self.clusterer,
            self.job.shape,
            partial(self.fragments, at),
            partial(self.write, at),
            scratch_of(self.folder, at),
            CLUSTERING,
        )

    def embed(self, box: Box, at: tuple[int, ...]) -> NDArray[np.float32]:
        """Embeddings D(z)yx of a box within the image."""

        def read(part: Box) -> NDArray[np.float32]:
            return self.package.normalisation.apply(self.image.read(part, at))

        return embeddings_of(
            self.engines.hold,
            read,
            box,
            self.job.shape,
            self.package.geometry,
            tile=self.job.choice.tile,
            batch=self.job.choice.batch,
            embedding_dim=self.package.embedding_dim,
        )

    def fragments(self, at: tuple[int, ...], block: Box) -> BlockFragments:
        shape, whole = self.job.shape, self.job.choice.whole
        box = block if whole else grown(block, shape)
        embeddings = self.embed(box, at)
        inside = None if self.mask is None else self.mask.read(box, at)[0] > 0
        if self.embeddings is not None:
            own = embeddings[:, *block.relative_to(box.start).slices]
            self.embeddings.write(block, own, at)
        with CLUSTERING:
            if whole:
                labels = instances(
                    self.whole,
                    embeddings,
                    self.package.space,
                    foreground=inside,
                    source=self.job.request.image.path,
                )
                return all_enclosed(labels, len(embeddings))
            embeddings = embeddings[: self.package.space.dimensions]
            found = fragments(self.clusterer, embeddings, box, block, shape, foreground=inside)
            return finish_enclosed(self.clusterer, found, block, shape)

    def write(self, at: tuple[int, ...], block: Box, labels: Labels) -> Arrays:
        self.labels.write(block, labels, at)
        if self.job.request.table is None:
            return {}
        place = Box((*at, *block.start), (*(i + 1 for i in at), *block.stop))
        image = self.image.read(block, at)
        leading = (1,) * len(at)
        sums = partial_table(
            labels.reshape(leading + block.shape),
            image.reshape(image.shape[:1] + leading + block.shape),
            place,
        )
        return vars(sums)


def scratch_of(folder: Path, at: tuple[int, ...]) -> ScratchFolder:
    return ScratchFolder(folder / "scratch" / ("_".join(map(str, at)) or "image"))


def perform(folder: str, at: tuple[int, ...], step: str, block: Box) -> None:
    """One step for one block in any process that sees the same files; see DaskCluster."""
    plan = os.stat(Path(folder) / "job.json").st_mtime_ns
    with _OPENING:
        worker = _worker(folder, plan)
    worker.passes(at).do(step, block)


_OPENING = threading.Lock()


@lru_cache(maxsize=1)
def _worker(folder: str, plan: int) -> Worker:
    from zoo_models.prediction.engines import EngineChoice, build_engine

    job = Job.load(Path(folder))
    package = Package.load(job.package, options=job.request.clusterer)
    device = job.request.device.split(",")[0]
    choice = EngineChoice(
        job.choice.engine, job.request.precision, device, threads=job.choice.threads
    )
    return Worker(job, Path(folder), package, EnginePool([build_engine(job.package, choice)]))


def create_stores(job: Job, folder: Path, embedding_dim: int, targets: Targets) -> None:
    """What blocks are written into; what a kill left half-written there is put right."""
    published = PUBLISHED in ScratchFolder(folder / "scratch")
    for name, target in ((LABELS, targets.labels), (EMBEDDINGS, targets.embeddings)):
        if published and target is not None and target.exists() and not (folder / name).exists():
            target.rename(folder / name)  # killed after it had its name, before all was done
    common: Any = {
        "voxel_size_um": job.voxel_size_um,
        "origin": job.origin,
        "chunk": job.choice.chunk,
    }
    LabelStore.create(folder / LABELS, job.full_shape, job.all_axes, **common)
    dtype = job.request.embeddings
    if dtype is not None and not published:
        EmbeddingStore.create(
            folder / EMBEDDINGS, embedding_dim, job.full_shape, job.all_axes, dtype=dtype, **common
        )


def segment(
    job: Job, folder: Path, worker: Worker, schedule: Schedule, *, remote: bool = False
) -> int:
    """Do what is missing of a job; returns the number of instances.

    remote: blocks are done by `perform`, in processes that open everything themselves.

    Raises:
        BlocksFailedError: some blocks could not be done; the others are kept.
    """
    total = 0
    for at in job.planes:
        passes = worker.passes(at)
        work = partial(perform, str(folder), at) if remote else None
        total += cluster_blocks(passes, job.blocks, schedule, work=work, numbered=total)
    return total


def publish(job: Job, folder: Path, targets: Targets) -> None:
    """Finish the outputs, give them their names, and remove the folder of the run.

    Each appears whole, the labels last: where they are, all is done.
    """
    if targets.table is not None:
        places = [(at, block) for at in job.planes for block in job.blocks]

        def read(n: int) -> ObjectSums:
            at, block = places[n]
            return ObjectSums(**written(scratch_of(folder, at), block))

        portions = merged_in_portions(read, len(places))
        write_table(targets.table, portions, axes=job.all_axes, voxel_size_um=job.voxel_size_um)
    store = LabelStore.open(folder / LABELS)
    if job.request.labels == "ome-zarr":
        store.build_pyramid()
    ScratchFolder(folder / "scratch")[PUBLISHED] = {}
    if targets.embeddings is not None and (folder / EMBEDDINGS).exists():
        _replace(folder / EMBEDDINGS, targets.embeddings)
    if job.request.labels == "ome-zarr":
        _replace(folder / LABELS, targets.labels)
    else:
        write_labels(
            targets.labels,
            store.read().astype(np.int32),
            axes=job.all_axes,
            voxel_size_um=job.voxel_size_um,
            overwrite=True,
        )
    forget(folder)


def _replace(made: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    made.rename(target)
