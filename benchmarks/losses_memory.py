"""What the losses add to the memory: 200 instances on 512 x 512 x 16 pixels, 16 dimensions.

    python benchmarks/losses_memory.py [--instances N] [--shape Z Y X] [--case NAME] [--bf16]

Each case is a fresh process, which reports the peak of its resident memory over forward and
backward, less what it held before: everything that the loss adds on top of the embeddings (and the
teacher's) and the labels given to it. The embeddings' gradient, 0.25 GiB here, counts as added.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

# The folder of this file leads the path, and its training.py would hide the package of that name.
sys.path = [folder for folder in sys.path if Path(folder) != Path(__file__).parent]

from training.losses.combined import EmbeddingLoss

GIB = 1 << 30

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, neighbours": {"neighbourhood": 10},
    "full, bce": {"object_loss": "bce"},
    "sparse": {"unlabeled": 0},
    "sparse, neighbours": {"unlabeled": 0, "neighbourhood": 10},
    "sparse, bce": {"unlabeled": 0, "object_loss": "bce"},
}
"""Sparse cases have the unlabeled push and the consistency with a teacher."""


def resident_bytes(name: str) -> int:
    """Resident memory of this process by the kernel's count (Linux): "VmRSS" now, "VmHWM" peak.

    resource.getrusage would count the process that started this one, too.
    """
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith(name)]
    return int(line.split()[1]) * 1024


def striped_labels(shape: tuple[int, ...], instances: int) -> torch.Tensor:
    """(Z, Y, X) int64: 0 in every second column, 1..instances elsewhere, in equal stretches of y
    and x."""
    columns = shape[1] * shape[2]
    ids = torch.arange(columns) * instances // columns + 1
    ids[1::2] = 0
    return ids.reshape(shape[1:]).expand(shape).contiguous()


def measure(name: str, *, shape: tuple[int, ...], instances: int, bf16: bool) -> dict[str, float]:
    """Added GiB and seconds of one case, in this process, which should have done nothing before."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if bf16 else torch.float32
    labels = striped_labels(shape, instances)[None]
    embeddings = torch.randn(1, 16, *shape, dtype=dtype).requires_grad_()
    loss = EmbeddingLoss(**CASES[name])
    teacher = None if loss.unlabeled is None else torch.randn(1, 16, *shape, dtype=dtype)
    before, start = resident_bytes("VmRSS"), time.perf_counter()
    loss(embeddings, labels, teacher)["loss"].backward()
    return {
        "added_gib": (resident_bytes("VmHWM") - before) / GIB,
        "seconds": time.perf_counter() - start,
    }


def measure_apart(name: str, *, shape: tuple[int, ...], instances: int, bf16: bool) -> Any:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--here", "--case", name, "--instances", str(instances)]
    command += ["--shape", *map(str, shape), *(["--bf16"] if bf16 else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Memory that the losses add.")
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=3, default=(16, 512, 512), metavar="N")
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--bf16", action="store_true", help="embeddings as under autocast")
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    return parser


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    settings = {
        "shape": tuple(arguments.shape),
        "instances": arguments.instances,
        "bf16": arguments.bf16,
    }
    if arguments.here:
        print(json.dumps(measure(arguments.case, **settings)))
        return
    print(f"{'case':20}{'added GiB':>10}{'seconds':>9}")
    for name in [arguments.case] if arguments.case else CASES:
        found = measure_apart(name, **settings)
        print(f"{name:20}{found['added_gib']:10.2f}{found['seconds']:9.1f}", flush=True)


if __name__ == "__main__":
    main(parser().parse_args())
