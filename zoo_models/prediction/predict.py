"""One package and many images, of any size: labels, object tables and embeddings in files.

Predictor(package, options)          the network is loaded, and its cost measured, once
    .prepare(image, targets)         -> Job: what will be done; nothing is written yet
    .run(job, targets, schedule)     -> number of instances; may be cut and given again
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from zoo_models.checkpoint import sha256
from zoo_models.errors import ImageError, InputError
from zoo_models.package import Package
from zoo_models.prediction.blocks import BlockGrid
from zoo_models.prediction.calibration import Calibration, calibrate
from zoo_models.prediction.clustering import AS_TRAINED, ClustererOptions
from zoo_models.prediction.engine import TILE_LIMIT
from zoo_models.prediction.engine_pool import EnginePool
from zoo_models.prediction.engine_trials import fastest_engine
from zoo_models.prediction.engines import Engine, EngineChoice, build_engine
from zoo_models.prediction.job import Choice, Job, Request, begun, forget
from zoo_models.prediction.layout import choose_layout, least_bytes
from zoo_models.prediction.memory_meter import resident
from zoo_models.prediction.plan import (
    ARENA,
    LOADED_LATER,
    WHOLE_BYTES,
    BlockCost,
    blocks_of,
    chunk_edges,
    half_the_memory,
    needed,
)
from zoo_models.prediction.schedule import Schedule
from zoo_models.prediction.source import Place, Source, expect_source, open_source
from zoo_models.prediction.stream import (
    Targets,
    Worker,
    create_stores,
    publish,
    segment,
    streams,
)

SMALL = 2**24
"""Pixels up to which labels are an OME-TIFF by default, and nothing is measured before."""


@dataclass(frozen=True)
class Options:
    """What a caller wants, for all images; None: to be chosen.

    Attributes:
        clusterer: in place of the package's own.
        engine, precision, device: what runs the network; devices, separated by commas.
        threads: of the network on a CPU, in each process; None: as many as torch has.
        tile: largest tile edge in pixels. memory: bytes that the process may hold.
        labels: format; None: by size. table, embeddings: None: not written.
    """

    clusterer: ClustererOptions = AS_TRAINED
    engine: str = "auto"
    precision: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    tile: int | None = None
    memory: int | None = None
    labels: Literal["ome-tiff", "ome-zarr"] | None = None
    table: Literal["csv", "parquet"] | None = None
    embeddings: Literal["float32", "float16"] | None = None


class Predictor:
    """A package, ready for images.

    at_once: blocks in work at the same time: one in each device, and one that is read or clustered.

    Raises:
        PackageError: the package cannot be used. InputError: impossible options.
    """

    def __init__(self, package: Path, options: Options) -> None:
        self.path = package
        self.options = options
        self.at_once = 1 + len(options.device.split(","))
        self.package = Package.load(package, options=options.clusterer)
        self.sha256 = sha256(package) if package.is_file() else _folder_state(package)
        self.threads = options.threads or torch.get_num_threads()
        self._engines: dict[tuple[str, int], EnginePool] = {}
        self._measured: tuple[str, Calibration] | None = None

    def prepare(
        self, image: Place, mask: Place | None, targets: Targets, *, overwrite: bool = False
    ) -> Job:
        """What is to be done with one image; taken up where a run with the same request was cut.

        Raises:
            ImageError: the image does not fit the network.
            InputError: it does not fit into the memory.
            OutputExistsError: a run with another request was begun there.
        """
        with open_source(image, ndim=self.package.geometry.ndim) as source:
            expect_source(
                source, axes=self.package.geometry.names, channels=self.package.in_channels
            )
            request = self._request(source, mask)
            job = begun(targets.folder, request, overwrite=overwrite)
            if job is not None:
                return job
            return Job(
                request=request,
                choice=self._choose(source, request),
                package=self.path.absolute(),
                axes=source.axes,
                shape=source.shape,
                stack=source.stack,
                voxel_size_um=source.voxel_size_um,
            )

    def run(self, job: Job, targets: Targets, schedule: Schedule, *, remote: bool = False) -> int:
        """Do the job, or what is missing of it; returns the number of instances.

        Raises:
            BlocksFailedError: some blocks could not be done; the others are kept.
        """
        folder = targets.folder.absolute()
        choice = job.choice
        engines = EnginePool(()) if remote else self.engines(choice.engine, choice.threads)
        new = not folder.parent.exists()
        job.save(folder)
        try:
            create_stores(job, folder, self.package.embedding_dim, targets)
            with Worker(job, folder, self.package, engines) as worker:
                number = segment(job, folder, worker, schedule, remote=remote)
            publish(job, folder, targets)
        except BaseException:
            if len(job.blocks) == 1 and math.prod(job.full_shape) <= SMALL:  # nothing worth keeping
                forget(folder)
                if new:
                    with suppress(OSError):
                        folder.parent.rmdir()
            raise
        return number

    def labels_format(self, shape: Sequence[int]) -> Literal["ome-tiff", "ome-zarr"]:
        """What is asked for, or OME-TIFF for images up to SMALL pixels."""
        return self.options.labels or ("ome-tiff" if math.prod(shape) <= SMALL else "ome-zarr")

    def engines(self, name: str, threads: int) -> EnginePool:
        """The engine of that name on all devices asked for; built once."""
        if (name, threads) not in self._engines:
            devices = self.options.device.split(",")
            built = [self._built(name, threads, device) for device in devices]
            self._engines[name, threads] = EnginePool(built)
        return self._engines[name, threads]

    def _built(self, name: str, threads: int, device: str) -> Engine:
        return build_engine(self.path, EngineChoice(name, self.options.precision, device, threads))

    @property
    def calibration(self) -> Calibration | None:
        """What a tile costs, where it was measured."""
        return self._measured[1] if self._measured else None

    def measured(self, pixels: int) -> tuple[str, Calibration]:
        """The engine, the fastest unless one is asked for, and what a tile costs in it; once.

        pixels: that the network will have to compute, about.
        """
        if self._measured is None:
            name, package = self.options.engine, self.package
            device, *others = self.options.device.split(",")
            if name == "auto":
                choice = EngineChoice("auto", self.options.precision, device, self.threads)
                name = fastest_engine(
                    self.path, choice, pixels=pixels, memory_bytes=self._bytes_left()
                ).name
            engine = self._built(name, self.threads, device)
            calibration = calibrate(
                engine,
                package.geometry,
                package.in_channels,
                package.embedding_dim,
                memory_bytes=self._bytes_left(),
            )
            if name == "compile":  # any other keeps memory for the largest tile it has seen
                more = [self._built(name, self.threads, other) for other in others]
                self._engines[name, self.threads] = EnginePool([engine, *more])
            self._measured = name, calibration
        return self._measured

    def _bytes_left(self) -> int:
        """What this process may take beside what it holds."""
        return (self.options.memory or half_the_memory()) - resident()

    def _request(self, source: Source, mask: Place | None) -> Request:
        shape, options, state = source.shape, self.options, None
        if mask is not None:
            with open_source(mask, ndim=len(shape)) as inside:
                _expect_mask(inside, source)
                state = inside.fingerprint()
        return Request(
            package=self.sha256,
            clusterer=options.clusterer,
            image=source.place,
            image_state=source.fingerprint(),
            mask=mask,
            mask_state=state,
            engine=options.engine,
            precision=options.precision,
            device=options.device,
            tile=options.tile,
            memory=options.memory,
            labels=self.labels_format([n for _, n in source.stack] + list(shape)),
            table=options.table,
            embeddings=options.embeddings,
        )

    def _choose(self, source: Source, request: Request) -> Choice:
        package, shape, options = self.package, source.shape, self.options
        geometry, chunk = package.geometry, chunk_edges(package.geometry)
        whole = not streams(package.space)
        small = math.prod(shape) <= TILE_LIMIT[len(shape)] ** len(shape)
        if small and options.memory is None:
            name = "torchscript" if options.engine == "auto" else options.engine
            limit = options.tile or TILE_LIMIT[len(shape)]
            grid = BlockGrid.covering(shape, geometry, tile_limit=limit)
            return Choice(name, self.threads, grid.tile, 1, _up(shape, chunk), chunk, whole)
        name, calibration = self.measured(math.prod(shape) * math.prod(n for _, n in source.stack))
        allowed = options.memory or half_the_memory()
        memory = allowed - calibration.process_bytes - LOADED_LATER - self.at_once * ARENA
        cost = BlockCost(package.in_channels, package.embedding_dim, self.at_once)
        blocks = [_up(shape, chunk)] if whole else blocks_of(shape, chunk)

        def block_bytes(block: tuple[int, ...]) -> int:
            return self._whole_bytes(shape) if whole else needed(block, shape, cost)

        least = least_bytes(calibration, geometry, min(map(block_bytes, blocks)))
        if least > memory:
            raise InputError(self._too_little(source, allowed, allowed + least - memory, whole))
        layout = choose_layout(
            calibration, geometry, shape, blocks, block_bytes, memory, limit=options.tile
        )
        return Choice(name, self.threads, layout.tile, layout.batch, layout.block, chunk, whole)

    def _too_little(self, source: Source, allowed: int, wanted: int, whole: bool) -> str:
        found, expected = (f"{number / 2**20:.0f} MiB" for number in (allowed, wanted))
        if not whole:
            return (
                f"{found} of memory: this program, its smallest tiles and blocks need {expected}; "
                "give more with --memory."
            )
        method = self.package.space.clusterer.name
        return (
            f"{source.place.path}: {method} needs the image in one piece, {expected} with this "
            f"program, and {found} are allowed; give more with --memory, cut a part with --region, "
            "or take --method basin_merging with a model that knows its background."
        )

    def _whole_bytes(self, shape: Sequence[int]) -> int:
        """For embeddings of all pixels, and a method that needs them in one piece."""
        per_pixel = WHOLE_BYTES[self.package.space.clusterer.name] + 4 * self.package.embedding_dim
        return math.prod(shape) * per_pixel


def _expect_mask(mask: Source, image: Source) -> None:
    if mask.shape != image.shape or mask.channels != 1 or mask.stack != image.stack:
        raise ImageError(
            f"{mask.place.path}: is a mask of {mask.shape} pixels in {mask.channels} channel(s), "
            f"expected {image.shape} in one as the image; name the mask of this image"
        )


def _up(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """The shape in whole chunks."""
    return tuple(math.ceil(n / c) * c for n, c in zip(shape, chunk, strict=True))


def _folder_state(package: Path) -> str:
    """sha256 of the files of an unpacked package."""
    folder = package if package.is_dir() else package.parent
    return " ".join(sha256(file) for file in sorted(folder.rglob("*")) if file.is_file())
