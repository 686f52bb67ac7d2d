"""One run of `spoco-zoo predict`: image by image, from where it is to files in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from packager.cli.progress import Follower
from packager.overlay import write_overlay
from packager.plan_report import facts_of, in_words
from zoo_models.errors import ImageError, InputError, OutputExistsError
from zoo_models.geometry import Box
from zoo_models.prediction.images import read_labels
from zoo_models.prediction.job import Job
from zoo_models.prediction.predict import Options, Predictor
from zoo_models.prediction.schedule import Schedule, Threads, dask_cluster
from zoo_models.prediction.source import Place, open_source
from zoo_models.prediction.stream import Targets


class Segmenter:
    """A package, an output folder, and who does the blocks."""

    def __init__(self, package: Path, options: Options, out: Path, follower: Follower) -> None:
        self.predictor = Predictor(package, options)
        self.options = options
        self.out = out
        self.follower = follower
        self.schedule: Schedule = Threads(self.predictor.at_once, follower.block)
        self.remote = False

    @contextmanager
    def on(self, scheduler: str | None) -> Iterator[None]:
        """Have the blocks done by a dask cluster, while this lasts; None: by this process."""
        if scheduler is None:
            yield
            return
        with dask_cluster(scheduler, self.follower.block) as self.schedule:
            self.remote = True
            yield

    def targets(self, place: Place) -> Targets:
        """Where the outputs of an image go."""
        name = name_of(place.path)
        with open_source(place, ndim=self.predictor.package.geometry.ndim) as source:
            shape = [n for _, n in source.stack] + list(source.shape)
        suffix = {"ome-tiff": "tif", "ome-zarr": "zarr"}[self.predictor.labels_format(shape)]
        table, embeddings = self.options.table, self.options.embeddings
        return Targets(
            self.out / f"{name}_labels.ome.{suffix}",
            self.out / f"{name}_objects.{table}" if table else None,
            self.out / f"{name}_embeddings.ome.zarr" if embeddings else None,
        )

    def expect_new(self, places: list[Place], *, overlay: bool) -> None:
        """Refuse before any work is done what would be refused after hours of it.

        Raises:
            OutputExistsError: outputs are there, and no run that was cut.
            InputError: outputs of two images would have one name.
        """
        expect_different_names(places, self.out)
        wanted = [file for place in places for file in self._files(place, overlay=overlay)]
        existing = [file for file in wanted if file.exists()]
        if existing:
            raise OutputExistsError(
                f"{existing[0]} exists already ({len(existing)} such files): use --overwrite, "
                "--skip-existing to do the other images only, or another --out."
            )

    def is_done(self, place: Place) -> bool:
        """Whether the labels are there, and no run that was cut."""
        targets = self.targets(place)
        return targets.labels.exists() and not targets.folder.exists()

    def _files(self, place: Place, *, overlay: bool) -> list[Path]:
        """What an image becomes; nothing, where its run was cut or the image is bad."""
        try:
            targets = self.targets(place)
        except ImageError:
            return []  # told when it is its turn
        if targets.folder.exists():
            return []
        picture = self.out / f"{name_of(place.path)}_overlay.png" if overlay else None
        files = (targets.labels, targets.table, targets.embeddings, picture)
        return [file for file in files if file is not None]

    def plan(self, place: Place, mask: Path | None) -> None:
        """Tell what would be done; write nothing."""
        targets = self.targets(place)
        job = self._prepare(place, mask, targets, overwrite=True)
        facts = facts_of(job, self.predictor)
        self.follower.finished(in_words(facts, targets.labels), **facts)

    def segment(self, place: Place, mask: Path | None, *, overlay: bool, overwrite: bool) -> None:
        """Do all of one image."""
        targets = self.targets(place)
        picture = self.out / f"{name_of(place.path)}_overlay.png" if overlay else None
        if picture is not None and targets.labels.suffix != ".tif":
            raise InputError(
                f"{place.path}: --overlay is for images whose labels are an OME-TIFF; look at "
                f"{targets.labels} with a viewer of OME-Zarr, or draw a --region."
            )
        job = self._prepare(place, mask, targets, overwrite=overwrite)
        self.follower.plan(**facts_of(job, self.predictor))
        start, before = time.perf_counter(), self._seconds(job)
        number = self.predictor.run(job, targets, self.schedule, remote=self.remote)
        if picture is not None:
            with open_source(place, ndim=len(job.shape)) as source:
                image = source.read(Box.of_shape(source.shape), (0,) * len(source.stack))[0]
            labels = read_labels(targets.labels)
            write_overlay(picture, image, labels if labels.ndim == image.ndim else labels[0])
        written = {name: str(path) for name, path in vars(targets).items() if path is not None}
        self.follower.finished(
            f"{targets.labels}  {number} instances",
            instances=number,
            seconds=round(time.perf_counter() - start, 3),
            network_seconds=round(self._seconds(job) - before, 3),
            **written,
        )

    def _seconds(self, job: Job) -> float:
        """Spent in the network so far."""
        return self.predictor.engines(job.choice.engine, job.choice.threads).seconds

    def _prepare(
        self, place: Place, mask: Path | None, targets: Targets, *, overwrite: bool
    ) -> Job:
        where = None if mask is None else Place(str(mask), region=place.region)
        return self.predictor.prepare(place, where, targets, overwrite=overwrite)


def name_of(path: str) -> str:
    """The name of an image without folders and suffixes: 'cells' of a/cells.ome.tif, of
    https://host/cells.ome.zarr/0 and of cells.h5:/raw."""
    parts = PurePosixPath(path.replace("\\", "/").rstrip("/")).parts
    ends = (".zarr", ".h5", ".hdf5", ".hdf")
    stores = [p.split(":")[0] for p in parts if p.split(":")[0].endswith(ends)]
    stem = PurePosixPath(stores[0] if stores else parts[-1]).stem
    return stem.removesuffix(".ome")


def expect_different_names(places: list[Place], out: Path) -> None:
    """Raises InputError: outputs of two images would have one name."""
    owner: dict[str, Place] = {}
    for place in places:
        first = owner.setdefault(name_of(place.path), place)
        if first is not place:
            raise InputError(
                f"{first.path} and {place.path} would both be written to "
                f"{out / name_of(place.path)}_labels: expected different names; predict them into "
                "different folders."
            )
