"""How fast and how good every clusterer is, in one run: methods, libraries and the memory's floor.

    python benchmarks/clustering.py [--sizes 448x448 128x128x128] [--data DATA] [--methods NAME ...]
        [--background known|largest] [--repeats 5] [--limit 900] [--threads 1] [--json FILE]
    python benchmarks/clustering.py --quality [--methods NAME ...] [--limit 10]

Synthetic embeddings have 16 dimensions and known truth (zoo_models/synthetic_embeddings.py). Those
of the catalog's models are computed from validation images of the data set that each was trained
on; DATA is the folder of the data sets. Every contender (clustering_contenders.py) gets every input
in a fresh process, and first a corner of it, so that compiling is not counted. With one thread the
clock is the CPU time of that process, which waits for nobody; with several it is the wall's. Memory
is the peak above what the process held before, the embeddings among it.

Settings are the model's own for the method chosen for it; all else has its defaults, derived from
the margins. The background is known (the model's, the scene's), or it is the largest cluster.

"ARand error" takes pixels that were given to the background for one segment, as scikit-image does;
"contest" takes each of them for a segment of its own, as the evaluation of SNEMI3D and CREMI does.

What would take longer than --limit seconds, or more memory than is free, is left out, and the
reason is told. `--quality` scores what is fast enough on scenes of growing noise and blur.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import torch
from clustering_contenders import CONSISTENCY, FLOOR, HDBSCAN, PEERS, Job, contenders
from clustering_inputs import Case, model_case, scene_of_size, scene_settings, synthetic_case

from zoo_models.catalog import list_models
from zoo_models.errors import ImageError
from zoo_models.synthetic_embeddings import Kind

SIZES = ("448x448", "40x128x128", "1024x1024", "128x128x128", "4096x4096")
SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.25)
BLURS = (0, 1, 2)
CORRELATIONS = (0, 2, 4)
KINDS = get_args(Kind)
SLACK = 120
"""Seconds that a process may need besides: imports, compiling, reading, scores."""
BUSY = 10
"""A process that waits this many times as long as it may work has hung."""
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """What one contender did on one case: numbers, or the reason why there are none."""

    case: str
    contender: str
    pixels: int
    found: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Small ones first; only one at a time is on the disk."""
    noise = {key: getattr(arguments, key) for key in ("sigma", "blur", "correlation")}
    teacher = any(name.startswith(CONSISTENCY) for name in arguments.methods)
    for model in list_models() if arguments.data else ():
        try:
            yield model_case(model, arguments.data, folder, count=arguments.images)
        except ImageError as error:
            print(f"{model.name}: left out: {error}", file=sys.stderr)
        _empty(folder)
    for size, kind in itertools.product(arguments.sizes, arguments.kinds):
        scene = scene_of_size(size, {"kind": kind, **noise})
        yield synthetic_case(scene, folder, teacher=teacher)
        _empty(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def measured(case: Case, contender: str, arguments: argparse.Namespace, before: list[Row]) -> Row:
    """`before`: what this contender did on other cases."""
    reason = _too_much(case, arguments.limit, before)
    if contender.startswith(CONSISTENCY) and not case.has_teacher:
        reason = "it compares the network with its teacher, and this model kept none"
    if reason:
        return Row(case.name, contender, case.pixels, reason=reason)
    job = Job(
        contender,
        case.settings(contender, background_known=arguments.background == "known"),
        arguments.threads,
        arguments.limit,
        images=case.images,
        repeats=arguments.repeats,
        memory=_free_memory(),
    )
    lines, reason = _run(job, arguments.limit + SLACK)
    return Row(case.name, contender, case.pixels, lines[0] if lines else {}, reason)


def _too_much(case: Case, limit: float, before: list[Row]) -> str:
    """Why a case cannot be done, as far as smaller ones tell; no method is faster than linear."""
    for row in before:
        times = case.pixels / row.pixels
        if times < 1:
            continue
        if row.reason.startswith("stopped"):
            return f"{row.reason} on {row.case}, which is smaller"
        seconds = row.found.get("seconds", 0) * times
        if seconds > limit:
            return (
                f"{row.found['seconds']:.0f} s on {row.case}, so {seconds:.0f} s or more here, "
                f"above the limit of {limit:g} s"
            )
        peak = row.found.get("peak_bytes", 0) * times
        if peak > _free_memory():
            return f"needs {peak / MIB:.0f} MiB or more, {_free_memory() / MIB:.0f} MiB are free"
    return ""


def _run(job: Job, cpu_seconds: float) -> tuple[list[Any], str]:
    """What the process printed, and the reason if it did not come to its end."""
    job = replace(job, cpu_seconds=int(cpu_seconds) * job.threads)
    try:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("clustering_contenders.py")],
            input=job.as_json(),
            env={**os.environ, **_thread_counts(job.threads)},
            capture_output=True,
            text=True,
            timeout=BUSY * cpu_seconds,
        )
    except subprocess.TimeoutExpired:
        return [], f"stopped after {BUSY * cpu_seconds:.0f} s"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return lines, f"stopped after {cpu_seconds:.0f} s of CPU time"
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return lines, f"stopped: {last}" if done.returncode else ""


def _thread_counts(threads: int) -> dict[str, str]:
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


def _free_memory() -> int:
    """Bytes that can be had without swapping (Linux)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("MemAvailable")]
    return int(line.split()[1]) * 1024


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown lines of one case."""
    seconds = {row.contender: row.found["seconds"] for row in rows if row.found}
    mutex = min((seconds[peer] for peer in PEERS if peer in seconds), default=None)
    for row in rows:
        if row.found:
            own = row.found["seconds"]
            scores = [
                f"{row.found[k]:.3f}" if k in row.found else ""
                for k in ("arand_error", "arand_contest", "ap50")
            ]
            cells = [
                row.case,
                row.contender,
                f"{own:.4g}",
                f"{row.found['first_seconds']:.2g}",
                f"{row.found['peak_bytes'] / MIB:.0f}",
                *scores,
                _times(seconds.get(HDBSCAN), own),
                _times(mutex, own),
                _times(own, seconds.get(FLOOR)),
            ]
            yield f"| {' | '.join(cells)} |"


def _times(longer: float | None, shorter: float | None) -> str:
    return f"{longer / shorter:.3g}" if longer and shorter else ""


def compare(arguments: argparse.Namespace) -> list[Row]:
    """Measure and print case by case."""
    names = ["input", "method", "s", "first call, s", "MiB", "ARand error", "contest", "AP@0.5"]
    names += ["x faster than hdbscan", "x faster than mutex library", "x floor"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="clustering") as folder:
        for case in cases(arguments, Path(folder)):
            here: list[Row] = []
            for contender in arguments.methods:
                before = [row for row in rows if row.contender == contender]
                here.append(measured(case, contender, arguments, before))
            print("\n".join(table(here)), flush=True)
            rows += here
    skipped = [row for row in rows if row.reason]
    print("\nLeft out:\n" if skipped else "\nNothing was left out.")
    for row in skipped:
        print(f"- {row.contender}, {row.case}: {row.reason}")
    return rows


def study(arguments: argparse.Namespace) -> list[Row]:
    """The noise study: AP@0.5 and ARand error by sigma, blur, correlation and kind of scene."""
    noises = [
        {"kind": kind, "blur": blur, "correlation": correlation, "sigma": sigma}
        for kind, blur, correlation, sigma in itertools.product(
            arguments.kinds, BLURS, CORRELATIONS, SIGMAS
        )
    ]
    scenes = [scene_of_size(arguments.sizes[0], noise) for noise in noises]
    columns = " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS)
    print(f"{arguments.sizes[0]}, AP@0.5 / ARand error\n")
    print(f"| method | scene | {columns} | s |\n|{'---|' * (len(SIGMAS) + 3)}")
    rows: list[Row] = []
    for contender in arguments.methods[1:]:  # the floor finds no instances
        job = Job(
            contender,
            scene_settings(contender),
            arguments.threads,
            arguments.limit,
            memory=_free_memory(),
            background_known=arguments.background == "known",
            scenes=tuple(asdict(scene) for scene in scenes),
        )
        lines, reason = _run(job, (arguments.limit + 5) * len(scenes) + SLACK)
        here = [
            Row(f"{s.kind}, blur {s.blur:g}, correlation {s.correlation:g}", contender, 0, found)
            for s, found in zip(scenes, lines, strict=False)  # fewer where it was stopped
        ]
        print("\n".join([*study_table(here), *([f"\n{contender}: {reason}\n"] if reason else [])]))
        rows += [*here, *([Row("", contender, 0, reason=reason)] if reason else [])]
    return rows


def study_table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown lines of one method, and the means over all scenes of a kind."""
    for scene, group in itertools.groupby(rows, key=lambda row: row.case):
        found = [row.found for row in group]
        cells = [f"{f['ap50']:.2f} / {f['arand_error']:.3f}" for f in found]
        seconds = fmean(f["seconds"] for f in found)
        yield f"| {rows[0].contender} | {scene} | {' | '.join(cells)} | {seconds:.2g} |"
    for kind, group in itertools.groupby(rows, key=lambda row: row.case.split(",")[0]):
        found = [row.found for row in group]
        ap50, arand = (fmean(f[key] for f in found) for key in ("ap50", "arand_error"))
        cells = [f"{ap50:.3f} / {arand:.4f}", *[""] * len(SIGMAS)]
        yield f"| {rows[0].contender} | all {kind}, mean | {' | '.join(cells)} |"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Clusterers: time, memory and quality.")
    parser.add_argument("--sizes", nargs="*", default=SIZES, metavar="YxX", help="of scenes")
    parser.add_argument(
        "--data", type=Path, help="folder of the data sets: the models' images, too"
    )
    parser.add_argument("--images", type=int, default=8, help="of each data set")
    parser.add_argument("--methods", nargs="+", choices=contenders(), default=contenders())
    parser.add_argument("--background", choices=("known", "largest"), default="known")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default cells, of --quality all")
    parser.add_argument("--sigma", type=float, default=0.1, help="of the noise, each dimension")
    parser.add_argument("--blur", type=float, default=1.0, help="of the embedding; pixels")
    parser.add_argument("--correlation", type=float, default=2.0, help="of the noise; pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, help="seconds; default 900, of --quality 10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quality", action="store_true", help="scores on many scenes of one size")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    return parser


def main(arguments: argparse.Namespace) -> None:
    arguments.methods = tuple(dict.fromkeys((FLOOR, *arguments.methods)))
    if arguments.limit is None:
        arguments.limit = 10.0 if arguments.quality else 900.0
    arguments.kinds = arguments.kinds or (KINDS if arguments.quality else ("cells",))
    torch.set_num_threads(arguments.threads)
    print(
        f"{arguments.threads} thread(s), {'CPU' if arguments.threads == 1 else 'wall'} time, "
        f"{platform.machine()}, Python {platform.python_version()}, background "
        f"{arguments.background}, medians of up to {arguments.repeats} runs\n",
        flush=True,
    )
    rows = study(arguments) if arguments.quality else compare(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")


if __name__ == "__main__":
    main(parser().parse_args())
