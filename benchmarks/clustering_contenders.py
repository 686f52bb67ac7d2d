"""What benchmarks/clustering.py compares, each run in a process of its own.

    a method                  a file of zoo_models/postprocessing
    a method, compiled        the same with its loops compiled (zoo_models/compiled)
    mwatershed, bioimage_cpp  libraries for the mutex watershed, both on the same affinities; the
                              time to compute these is theirs
    floor                     the embedding's largest number: what it takes to read it once

As a script it reads one Job in JSON from stdin and prints what it measured.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

import zoo_models.compiled
from zoo_models.checkpoint import ClustererSettings
from zoo_models.contingency import contingency
from zoo_models.metrics import adapted_rand_error, aggregate, score
from zoo_models.postprocessing import CLUSTERERS, build_clusterer
from zoo_models.synthetic_embeddings import Scene, synthesise

Floats = NDArray[np.float32]
Run = Callable[[Floats], Any]

FLOOR = "floor"
HDBSCAN = "hdbscan_pixels"
CONSISTENCY = "consistency"
"""The method that compares the network's embeddings with the teacher's."""
PEERS = ("mwatershed", "bioimage_cpp")
COMPILED = ", compiled"
SHORTEST = 0.01
"""Seconds."""
WARM_UP = {2: 64, 3: 32}
"""Edge of the corner that is clustered first, by number of space axes."""


@dataclass(frozen=True)
class Job:
    """One contender on some images, or on some scenes.

    settings: of the clusterer; peers take delta_d, min_size and background of them.
    images: (embeddings, truth, the teacher's embeddings or ""), .npy files.
    repeats: runs of every image; fewer when they take long.
    limit: seconds for an image or a scene.
    memory: what this process may have; bytes, 0: no limit.
    cpu_seconds: what it may use in all; 0: no limit.
    scenes: the arguments of Scene; each is drawn and clustered once.
    background_known: of scenes; their background is added to the settings.
    """

    contender: str
    settings: Mapping[str, Any]
    threads: int
    limit: float
    images: tuple[tuple[str, str, str], ...] = ()
    repeats: int = 1
    memory: int = 0
    cpu_seconds: int = 0
    scenes: tuple[Mapping[str, Any], ...] = ()
    background_known: bool = True

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def contenders() -> tuple[str, ...]:
    """All names, those that others are compared with first."""
    compiled = [m.name + COMPILED for m in iter_modules(zoo_models.compiled.__path__)]
    methods = sorted(CLUSTERERS, key=lambda name: name != HDBSCAN)
    return (FLOOR, *PEERS, *methods, *(c for c in compiled if c.removesuffix(COMPILED) in methods))


def build(job: Job) -> Run:
    """Embeddings (D, [Z,] Y, X) -> labels, or anything for the floor."""
    if job.contender == FLOOR:
        return lambda embeddings: _read_once(embeddings, job.threads)
    if job.contender in PEERS:
        partition = {"mwatershed": _mwatershed, "bioimage_cpp": _bioimage_cpp}[job.contender]
        import_module(job.contender)  # here, so that a missing library is told before anything
        return lambda embeddings: _mutex_watershed(embeddings, partition, **job.settings)
    name = job.contender.removesuffix(COMPILED)
    if name != job.contender:
        module = import_module(f"zoo_models.compiled.{name}")
        clusterer: Run = getattr(module, CLUSTERERS[name])(**job.settings)
        return clusterer
    return build_clusterer(ClustererSettings(name, job.settings))


def measure(job: Job) -> dict[str, float]:
    """Means over the images: of the median seconds, and of the scores; the largest peak."""
    run = build(job)
    clock = time.process_time if job.threads == 1 else time.perf_counter
    start = clock()
    run(_corner(_given(job.contender, job.images[0])))
    warm_up = clock() - start
    seconds, peaks, scores, contest = [], [], [], []
    for image in job.images:
        embeddings = _given(job.contender, image)
        before = _fresh_peak()
        result, times = _timed(run, embeddings, clock)
        while len(times) < job.repeats and sum(times) < job.limit / 2:
            times += _timed(run, embeddings, clock)[1]
        seconds.append(median(times))
        peaks.append(_resident_bytes("VmHWM") - before)
        if job.contender != FLOOR:
            truth = np.load(image[1])
            scores.append(score(result, truth))
            contest.append(adapted_rand_error(contingency(_background_alone(result), truth)))
    found = {"seconds": fmean(seconds), "first_seconds": warm_up, "peak_bytes": max(peaks)}
    if scores:
        table = aggregate(scores)
        found |= {"arand_error": table.arand_error, "ap50": table.ap50}
        found["arand_contest"] = fmean(contest)
    return found


def study(job: Job) -> Iterator[dict[str, float]]:
    """Scores and seconds of every scene."""
    for number, arguments in enumerate(job.scenes):
        scene = Scene(**{**arguments, "shape": tuple(arguments["shape"])})
        drawn = synthesise(scene)
        background = drawn.means[0].tolist() if job.background_known else []
        run = build(replace(job, settings={**job.settings, "background": background}))
        embeddings = drawn.embeddings
        if job.contender.startswith(CONSISTENCY):
            teacher = synthesise(replace(scene, view=1)).embeddings
            embeddings = np.concatenate([embeddings, teacher])
        if number == 0:
            run(_corner(embeddings))
        start = time.process_time()
        labels = run(embeddings)
        seconds = time.process_time() - start
        if seconds > job.limit:
            raise SystemExit(f"{seconds:.1f} s for one scene, more than {job.limit:g} s")
        scores = score(labels, drawn.truth)
        yield {"arand_error": scores.arand_error, "ap50": scores.ap50, "seconds": seconds}


def _background_alone(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Every pixel of the background as a segment of its own."""
    alone = labels.astype(np.int64)
    background = alone == 0
    alone[background] = alone.max() + 1 + np.arange(np.count_nonzero(background))
    return alone


def _given(contender: str, image: tuple[str, str, str]) -> Floats:
    embeddings: Floats = np.load(image[0])
    if contender.startswith(CONSISTENCY):
        embeddings = np.concatenate([embeddings, np.load(image[2])])
    return embeddings


def _corner(embeddings: Floats) -> Floats:
    edge = WARM_UP[embeddings.ndim - 1]
    return embeddings[:, *(slice(edge) for _ in embeddings.shape[1:])].copy()


def _timed(run: Run, embeddings: Floats, clock: Callable[[], float]) -> tuple[Any, list[float]]:
    """The result and the seconds of one run, the mean of many where one is too short to measure."""
    calls = 1
    while True:
        start = clock()
        for _ in range(calls):
            result = run(embeddings)
        seconds = clock() - start
        if seconds >= SHORTEST:
            return result, [seconds / calls]
        calls *= 10


def _read_once(embeddings: Floats, threads: int) -> float:
    parts = np.array_split(embeddings.reshape(-1), threads)
    if threads == 1:
        return float(parts[0].max())
    with ThreadPoolExecutor(threads) as pool:
        return max(pool.map(lambda part: float(part.max()), parts))


def _mutex_watershed(
    embeddings: Floats,
    partition: Callable[[Floats, list[list[int]], NDArray[np.bool_]], NDArray[np.uint64]],
    *,
    delta_d: float,
    min_size: int,
    background: Sequence[float] = (),
) -> NDArray[np.int64]:
    """Eq. 12 of Wolny et al. 2022 with the offsets 1, 3, 9 and 27 along every axis; pixels near the
    background are left out, or else the largest segment and those with its embedding are; then
    pieces of at least min_size."""
    shape = embeddings.shape[1:]
    inside = np.ones(shape, bool)
    if len(background):
        inside = _squared(embeddings, np.asarray(background, np.float32)) >= delta_d**2
    offsets = [
        [r * (a == axis) for a in range(len(shape))]
        for r in (1, 3, 9, 27)
        for axis in range(len(shape))
    ]
    strengths = np.zeros((len(offsets), *shape), np.float32)
    for strength, offset in zip(strengths, offsets, strict=True):
        low = tuple(slice(max(0, n - o)) for n, o in zip(shape, offset, strict=True))
        high = tuple(slice(o, None) for o in offset)
        distance = np.sqrt(_squared(embeddings[:, *low], embeddings[:, *high]))
        near = np.maximum(1 - distance / (2 * delta_d), 0) ** 2
        strength[low] = (near if max(offset) == 1 else 1 - near) * (inside[low] & inside[high])
    segments = np.where(inside, partition(strengths, offsets, inside), 0).astype(np.int64)
    if len(background) == 0:
        sizes = np.bincount(segments.ravel())
        sums = [np.bincount(segments.ravel(), channel.ravel()) for channel in embeddings]
        means = np.stack(sums) / np.maximum(sizes, 1)
        apart = np.linalg.norm(means - means[:, [sizes.argmax()]], axis=0)
        segments[(apart < delta_d)[segments]] = 0
    pieces: NDArray[np.int64] = label(segments, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    pieces[(sizes < min_size)[pieces]] = 0
    return pieces


def _squared(embeddings: Floats, other: Floats) -> Floats:
    """Squared distances ([Z,] Y, X) to other embeddings, or to one (D,)."""
    squared = np.zeros(embeddings.shape[1:], np.float32)
    for channel, value in zip(embeddings, other, strict=True):
        difference = channel - value
        difference *= difference
        squared += difference
    return squared


def _mwatershed(
    strengths: Floats, offsets: list[list[int]], inside: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    import mwatershed

    signed = strengths.astype(np.float64)
    signed[inside.ndim :] *= -1  # below 0 repels; of pixels left out, 0
    segments: NDArray[np.uint64] = mwatershed.agglom(signed, offsets)
    return segments


def _bioimage_cpp(
    strengths: Floats, offsets: list[list[int]], inside: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    from bioimage_cpp.segmentation import mutex_watershed

    segments: NDArray[np.uint64] = mutex_watershed(strengths, offsets, inside.ndim, mask=inside)
    return segments


def _fresh_peak() -> int:
    """Let the kernel forget the peak of this process, and return its resident bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _resident_bytes("VmRSS")


def _resident_bytes(name: str) -> int:
    (line,) = [n for n in Path("/proc/self/status").read_text().splitlines() if n.startswith(name)]
    return int(line.split()[1]) * 1024


def main() -> None:
    job = Job(**json.load(sys.stdin))
    if job.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (job.memory, job.memory))
    if job.cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_seconds, job.cpu_seconds))
    if job.scenes:
        for found in study(job):
            print(json.dumps(found), flush=True)
    else:
        print(json.dumps(measure(job)))


if __name__ == "__main__":
    main()
