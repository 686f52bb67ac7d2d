"""How much of a training step our loss takes, and how much a plain transcription of it would.

    python benchmarks/training.py [--instances 100] [--dim 2] [--output 132] [--batch 4]
        [--threads 1] [--repeats 5] [--neighbourhood N] [--channels-last] [--bf16] [--compile]

The network is that of the catalog (width 32, 3 levels, 16 dimensions; in 3D without the local
normalisation), the loss SPOCO's L_SO under full supervision, the labels are discs of Voronoi cells
on background. The transcription is the published algorithm in plain PyTorch, one instance after the
other on one-hot masks. Both get the same embeddings and draw the same anchors; their values must
agree, or the benchmark ends with an error.

One round measures the network (forward, its backward and Adam), our loss and the transcription
(each forward and backward to the embeddings), one after the other, so that a busy machine is busy
for all; the table has medians over the rounds. With one thread the clock is the CPU time of this
process, which waits for nobody; with several it is the wall's.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

# The folder of this file leads the path, and its training.py would hide the package of that name.
sys.path = [folder for folder in sys.path if Path(folder) != Path(__file__).parent]

from training.losses.combined import EmbeddingLoss
from training.losses.instances import Instances
from training.sections import NetworkSection
from zoo_models.checkpoint import build_network, valid_unet_axes

TOLERANCE = 1e-4
"""Of the two losses' values, relative."""


def discs(instances: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Labels int64: each pixel belongs to the nearest of random centres, or, far from it, to 0."""
    rng = np.random.default_rng(seed)
    pixels = np.indices(shape).reshape(len(shape), -1).T
    distance, nearest = cKDTree(rng.uniform(0, shape, (instances, len(shape)))).query(pixels)
    radius = 0.45 * (math.prod(shape) / instances) ** (1 / len(shape))
    return torch.from_numpy(np.where(distance < radius, nearest + 1, 0).reshape(shape))


def transcription(embeddings: Tensor, labels: Tensor, anchors: list[Tensor]) -> Tensor:
    """L_SO of Wolny et al. 2022, Eqs. 1 to 5, as printed, with its default values.

    embeddings (B, D, [Z,] Y, X), labels (B, [Z,] Y, X); anchors: per sample (C,), the flat pixel
    that is drawn for each instance.
    """
    losses = []
    for sample, ids, drawn in zip(embeddings, labels, anchors, strict=True):
        e = sample.float().flatten(1)  # (D, N)
        one_hot = torch.stack([(ids.flatten() == k).float() for k in ids.unique()])  # (C, N)
        sizes = one_hot.sum(1)
        means = one_hot @ e.T / sizes[:, None]  # (C, D)
        pull, dice = [], []
        for k, mask in enumerate(one_hot):
            distance = (e - means[k][:, None]).norm(dim=0)
            pull.append(((distance - 0.5).clamp(min=0) ** 2 * mask).sum() / sizes[k])
            squared = ((e - e[:, drawn[k]][:, None]) ** 2).sum(0)
            soft = torch.exp(squared * math.log(0.9) / 0.5**2)
            overlap = 2 * (soft * mask).sum()
            dice.append(1 - overlap / ((soft**2).sum() + (mask**2).sum()).clamp(min=1e-6))
        distances = (means[:, None] - means[None]).norm(dim=2)
        hinges = (4 - distances).clamp(min=0) ** 2
        others = 1 - torch.eye(len(means))
        push = (hinges * others).sum() / max(1, len(means) * (len(means) - 1))
        small = 0.001 * means.norm(dim=1).mean()
        losses.append(torch.stack(pull).mean() + push + torch.stack(dice).mean() + small)
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Round:
    """Seconds."""

    network: float
    ours: float
    transcription: float


class Bench:
    """One network, one batch of patches and the two losses."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        dim, output = arguments.dim, (arguments.output,) * arguments.dim
        section = NetworkSection(local_radius=32 if dim == 2 else 0)
        kwargs = {"ndim": dim, **section.model_dump(exclude={"architecture"}, mode="json")}
        network: Any = build_network("unet_valid", kwargs).valid
        axes = valid_unet_axes(kwargs)
        shape = tuple(n + 2 * axis.shrink for n, axis in zip(output, axes, strict=True))
        self.images = torch.rand(arguments.batch, 1, *shape)
        if arguments.channels_last:
            layout: Any = torch.channels_last if dim == 2 else torch.channels_last_3d
            network.to(memory_format=layout)
            self.images = self.images.contiguous(memory_format=layout)
        self.optimiser = torch.optim.Adam(network.parameters())
        self.run: Any = torch.compile(network) if arguments.compile else network
        self.bf16: bool = arguments.bf16
        seeds = range(arguments.batch)
        self.labels = torch.stack([discs(arguments.instances, output, s) for s in seeds])
        self.loss = EmbeddingLoss(neighbourhood=arguments.neighbourhood)
        wall = arguments.threads > 1
        self.clock: Callable[[], float] = time.perf_counter if wall else time.process_time

    def round(self) -> tuple[Round, float]:
        """The seconds, and by how much the two losses differ, relative."""
        start = self.clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            embeddings = self.run(self.images)
        forward = self.clock() - start
        given = embeddings.detach()
        ours, value, gradient = self._timed(self._ours, given)
        anchors = [self._anchors(e, y) for e, y in zip(given, self.labels, strict=True)]
        plain, expected, _ = self._timed(lambda e: transcription(e, self.labels, anchors), given)
        start = self.clock()
        embeddings.backward(gradient)
        self.optimiser.step()
        self.optimiser.zero_grad()
        network = forward + self.clock() - start
        return Round(network, ours, plain), abs(value - expected) / expected

    def _ours(self, embeddings: Tensor) -> Tensor:
        loss = []
        for sample, labels in zip(embeddings, self.labels, strict=True):
            torch.manual_seed(1)
            loss.append(self.loss(sample[None], labels[None])["loss"])
        return torch.stack(loss).mean()

    def _anchors(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """What our loss draws under the same seed."""
        torch.manual_seed(1)
        return Instances.from_patch(embeddings, labels).random_pixels()

    def _timed(self, loss: Callable[[Tensor], Tensor], given: Tensor) -> tuple[float, float, Any]:
        """Seconds forward and backward, the value and the embeddings' gradient."""
        embeddings = given.clone().requires_grad_()
        start = self.clock()
        value = loss(embeddings)
        value.backward()
        return self.clock() - start, value.item(), embeddings.grad


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    bench.round()  # warms up, compiles
    rounds = []
    for _ in range(arguments.repeats):
        found, difference = bench.round()
        rounds.append(found)
        if arguments.neighbourhood is None and difference > TOLERANCE:
            raise SystemExit(
                f"The two losses differ by {difference:.1e} of their value, expected at most "
                f"{TOLERANCE:.0e}: the times compare two different things."
            )
    network = median(r.network for r in rounds)
    ours, plain = median(r.ours for r in rounds), median(r.transcription for r in rounds)
    chosen = [name for name in ("channels_last", "bf16", "compile") if getattr(arguments, name)]
    print(
        f"{arguments.instances} instances, {arguments.dim}D, batch {arguments.batch}, output "
        f"{arguments.output}, {arguments.threads} thread(s), {', '.join(chosen) or 'no options'}; "
        f"medians of {arguments.repeats} rounds, seconds"
    )
    print(f"{'':14}{'loss':>8}{'step':>8}{'share':>8}")
    print(f"{'ours':14}{ours:8.3f}{network + ours:8.3f}{ours / (network + ours):8.1%}")
    print(f"{'transcription':14}{plain:8.3f}{network + plain:8.3f}{plain / (network + plain):8.1%}")
    print(f"ratio of the losses {plain / ours:.1f}, of the steps", end=" ")
    print(f"{(network + plain) / (network + ours):.2f}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The loss in a training step.")
    parser.add_argument("--instances", type=int, default=100, help="per patch")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2)
    parser.add_argument("--output", type=int, default=132, help="width of the network's answer")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--neighbourhood", type=int, help="ours compares neighbours only")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="the network under autocast")
    parser.add_argument("--compile", action="store_true", help="the network by torch.compile")
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
