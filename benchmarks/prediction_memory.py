"""Does memory grow with the image? Peak resident set of spoco-zoo predict at growing sizes.

    python benchmarks/prediction_memory.py DATA [--sizes 8192 32768] [--memory 1500MiB]
        [--model nuclei-fluo-2d-discriminative] [--threads 2] [--work FOLDER]

The images are Zarr arrays that repeat the fields of DATA/bbbc039. Each run is a process of its own;
its peak is what the kernel tells of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
import zarr
from prediction import run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--memory", default="1500MiB")
    parser.add_argument("--model", default="nuclei-fluo-2d-discriminative")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("benchmark-prediction"))
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    package = work / f"{arguments.model}.zip"
    run(["spoco-zoo", "export", arguments.model, "-o", package, "--overwrite"], arguments.threads)
    print("| pixels | s | peak MiB | of the first |\n|---|---|---|---|")
    first = 0.0
    for size in arguments.sizes:
        image = repeated(arguments.data / "bbbc039", size, work)
        command = ["spoco-zoo", "predict", package, image, "-o", work / "out", "--overwrite"]
        options = ["--axes", "yx", "--labels", "ome-zarr", "--memory", arguments.memory]
        seconds, peak, _ = run([*command, *options], arguments.threads)
        first = first or peak
        print(f"| {size} x {size} | {seconds:.0f} | {peak:.0f} | {peak / first:.3f} |", flush=True)


def repeated(folder: Path, size: int, work: Path) -> Path:
    """The fields side by side, again and again, row of fields by row."""
    path = work / f"fields_{size}.zarr"
    if path.exists():
        return path
    fields = [tifffile.imread(file) for file in sorted((folder / "images").glob("*.tif"))]
    height, width = fields[0].shape
    row = np.concatenate(fields, axis=1)
    strip = np.tile(row, (1, -(-size // row.shape[1]) + 1))
    array = zarr.create_array(path, shape=(size, size), chunks=(512, 512), dtype="uint16")
    for y in range(0, size, height):
        shift = y // height * 7 * width % row.shape[1]  # neighbours differ along y, too
        rows = min(height, size - y)
        array[y : y + rows] = strip[:rows, shift : shift + size]
    return path


if __name__ == "__main__":
    main()
