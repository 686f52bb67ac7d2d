"""From an image file to a label file: spoco-zoo predict beside bioimageio predict, in one run.

    python benchmarks/prediction.py DATA [--size 4096] [--model nuclei-fluo-2d]
        [--blockwise 21 53] [--with bf16 dask] [--memory 2GiB] [--threads 2] [--pass-edge 2048]
        [--work FOLDER] [--json FILE]

The image is a mosaic of the fields in DATA/bbbc039, repeated where there are not enough. Rows:

    spoco-zoo              image -> labels, in blocks
    spoco-zoo, bf16        the same with --precision bfloat16
    dask 1, dask 2         the same with workers of one thread each
    bioimageio N           bioimageio predict --blockwise N, then spoco-zoo cluster

Each is a process of its own. Seconds are the wall's, from its start to its end; memory is the
largest resident set of one process, for bioimageio the larger of the two. AP@0.5 is that of nuclei
which do not touch the border of a field. Of our rows also: the share of the time that went into the
network; and how long the same engine takes for as many pixels in one pass, divided by the time in
the network ("of one pass"): an image of --pass-edge squared pixels in a single tile, by its pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from zoo_models.metrics import score
from zoo_models.prediction.label_store import LabelStore

MEASURED = """
import json, resource, subprocess, sys, time

start = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps([time.perf_counter() - start, peak, status]))
"""
"""A small process between this one and what it measures: the kernel also counts what a process held
before it became another program."""

CLUSTER = """
import sys, time
from dask.distributed import LocalCluster
from packager.cli import main

if __name__ == "__main__":
    number = int(sys.argv[1])
    with LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=":0") as cluster:
        cluster.wait_for_workers(number)
        start = time.perf_counter()
        sys.argv = ["spoco-zoo", *sys.argv[2:], "--scheduler", cluster.scheduler_address]
        try:
            main()
        finally:
            print("seconds", time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Row:
    """One contender. memory: MiB; network, one_pass: shares, where they are known."""

    name: str
    seconds: float
    memory: float
    ap50: float
    network: float | None = None
    one_pass: float | None = None


def main() -> None:
    arguments = parsed()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    image, truth, inner = mosaic(arguments.data / "bbbc039", arguments.size, work)
    package = work / f"{arguments.model}.zip"
    run(["spoco-zoo", "export", arguments.model, "-o", package, "--overwrite"], arguments.threads)
    rows = [ours("spoco-zoo", package, image, arguments, [])]
    if "bf16" in arguments.extra:
        options = ["--precision", "bfloat16"]
        rows.append(ours("spoco-zoo, bf16", package, image, arguments, options))
    if "dask" in arguments.extra:
        rows += [dask(workers, package, image, arguments) for workers in (1, 2)]
    rows += [bioimageio(n, package, image, arguments) for n in arguments.blockwise]
    rows = [scored(row, work, truth, inner) for row in rows]
    print(f"{arguments.size} x {arguments.size} pixels, {arguments.threads} thread(s)\n")
    print(markdown(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--model", default="nuclei-fluo-2d")
    parser.add_argument("--blockwise", type=int, nargs="*", default=[21, 53])
    parser.add_argument("--with", dest="extra", nargs="*", default=[], choices=["bf16", "dask"])
    parser.add_argument("--memory", default="2GiB", help="what our rows may hold")
    parser.add_argument("--pass-edge", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("benchmark-prediction"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def mosaic(folder: Path, size: int, work: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Image file, truth, and the truth's ids that touch no border of a field."""
    fields = sorted((folder / "images").glob("*.tif"))
    height, width = tifffile.imread(fields[0]).shape
    image = np.zeros((size, size), np.uint16)
    truth = np.zeros((size, size), np.int32)
    inner: list[np.ndarray] = []
    number = 0
    columns = -(-size // width)
    for place in range(-(-size // height) * columns):
        field = fields[place % len(fields)]
        y, x = place // columns * height, place % columns * width
        part = np.s_[: min(height, size - y), : min(width, size - x)]
        pixels = tifffile.imread(field)[part]
        labels = tifffile.imread(folder / "labels" / field.name)[part].astype(np.int32)
        cut = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        inner.append(np.setdiff1d(labels, np.append(cut, 0)) + number)
        image[y : y + height, x : x + width] = pixels
        truth[y : y + height, x : x + width] = np.where(labels > 0, labels + number, 0)
        number += int(labels.max())
    path = work / f"mosaic_{size}.tif"
    tifffile.imwrite(path, image, tile=(512, 512), compression="zlib", bigtiff=True)
    return path, truth, np.concatenate(inner)


def run(command: Sequence[Any], threads: int) -> tuple[float, float, str]:
    """Seconds, MiB of the process, and what it printed."""
    binary = Path(sys.executable).parent / str(command[0])
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    asked = [sys.executable, "-c", MEASURED, str(binary), *map(str, command[1:])]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    *printed, measured = done.stdout.splitlines()
    seconds, memory, status = json.loads(measured)
    print(f"{seconds:.1f} s  {memory:.0f} MiB  {' '.join(map(str, command))}", file=sys.stderr)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {status}")
    return seconds, memory, "\n".join(printed)


def ours(
    name: str, package: Path, image: Path, arguments: argparse.Namespace, options: list[str]
) -> Row:
    out = arguments.work / slug(name)
    command = ["spoco-zoo", "predict", package, image, "-o", out, "--overwrite", "--json"]
    command += ["--labels", "ome-zarr", "--memory", arguments.memory, *options]
    seconds, memory, printed = run(command, arguments.threads)
    events = [json.loads(line) for line in printed.splitlines()]
    plan = next(event for event in events if event["event"] == "plan")
    end = next(event for event in events if event["event"] == "image")
    network = float(end["network_seconds"])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        asked = (package, plan, arguments.pass_edge, arguments.threads)
        one_pass = alone.submit(seconds_of_one_pass, *asked).result()
    print(f"{name}: {json.dumps({'plan': plan, 'end': end, 'pass': one_pass})}", file=sys.stderr)
    return Row(name, seconds, memory, 0, network / seconds, one_pass / network)


def seconds_of_one_pass(package: Path, plan: dict[str, Any], edge: int, threads: int) -> float:
    """What all pixels of the image would take at the rate of one tile that keeps `edge` squared."""
    from zoo_models.prediction.engines import EngineChoice, build_engine

    choice = EngineChoice(plan["engine"], plan["precision"], plan["device"], threads)
    engine = build_engine(package, choice)
    shape = (1, 1, *(edge + 2 * halo for halo in plan["halo"]))
    tiles = np.random.default_rng(0).random(shape, dtype=np.float32)
    engine(tiles)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        engine(tiles)
        times.append(time.perf_counter() - start)
    return min(times) * float(np.prod(plan["shape"])) / edge**2


def dask(workers: int, package: Path, image: Path, arguments: argparse.Namespace) -> Row:
    """Workers of one thread each; the time begins when they are there."""
    out = arguments.work / slug(f"dask {workers}")
    script = arguments.work / "dask_cluster.py"
    script.write_text(CLUSTER)
    command = ["python", script, workers, "predict", package, image, "-o", out, "--overwrite"]
    asked = ["--labels", "ome-zarr", "--memory", arguments.memory]
    _, memory, printed = run([*command, *asked], 1)
    seconds = float(printed.split("seconds")[-1])
    return Row(f"dask {workers}", seconds, memory, 0)


def bioimageio(blockwise: int, package: Path, image: Path, arguments: argparse.Namespace) -> Row:
    name = f"bioimageio {blockwise}"
    out = arguments.work / slug(name)
    out.mkdir(exist_ok=True)
    stored = out / "embeddings.npy"
    labels = out / "labels.ome.tif"
    predict = ["bioimageio", "predict", package, f"--inputs={image}", f"--outputs={stored}"]
    network, first, _ = run(
        [*predict, "--overwrite", f"--blockwise={blockwise}", "--weight-format=torchscript"],
        arguments.threads,
    )
    cluster = ["spoco-zoo", "cluster", stored, "--package", package, "-o", labels, "--overwrite"]
    clustering, second, _ = run(cluster, arguments.threads)
    stored.unlink()
    seconds = network + clustering
    return Row(name, seconds, max(first, second), 0, network / seconds)


def scored(row: Row, work: Path, truth: np.ndarray, inner: np.ndarray) -> Row:
    """With AP@0.5 over true nuclei that no field's border cuts, and what lies on them."""
    folder = work / slug(row.name)
    stores = sorted(folder.glob("*_labels.ome.zarr"))
    path = stores[0] if stores else folder / "labels.ome.tif"
    labels = LabelStore.open(path).read() if stores else tifffile.imread(path)
    kept = np.isin(truth, inner)
    cut = np.unique(labels[(truth > 0) & ~kept])
    labels = np.where(np.isin(labels, cut), 0, labels)
    found = score(np.where(kept, truth, 0), labels.astype(np.int64))
    return Row(**(asdict(row) | {"ap50": found.ap50}))


def markdown(rows: Sequence[Row]) -> str:
    theirs = [row for row in rows if row.name.startswith("bioimageio")]
    best = min(theirs, key=lambda row: row.seconds, default=rows[0])
    lines = [
        "| way | s | MiB | AP@0.5 | in the network | of one pass | x faster than "
        f"{best.name} | of its memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = ["" if v is None else f"{v:.0%}" for v in (row.network, row.one_pass)]
        lines.append(
            f"| {row.name} | {row.seconds:.1f} | {row.memory:.0f} | {row.ap50:.3f} | {shares[0]} | "
            f"{shares[1]} | {best.seconds / row.seconds:.2f} | {row.memory / best.memory:.0%} |"
        )
    return "\n".join(lines)


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


if __name__ == "__main__":
    main()
