"""Train the network of a setup once, keep it, and read it back.

    NETWORKS/<setup>-seed<n>/   state.pt                  weights and optimiser of a cut training
                                checkpoint.safetensors    the finished network, and how it was made

What a step draws depends on seed and step alone, so a training that was cut ends as if it had not
been.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.experiments.shift_equivariance.pictures import Discs
from training.experiments.shift_equivariance.setups import MARGINS, Setup
from zoo_models.checkpoint import (
    Checkpoint,
    ClustererSettings,
    Normalisation,
    answering_part,
    build_network,
)
from zoo_models.errors import InputError
from zoo_models.geometry import Box

CHECKPOINT = "checkpoint.safetensors"
STATE = "state.pt"
SECONDS_BETWEEN_STATES = 30.0
IGNORED = -1

Progress = Callable[[str, int, int], None]
"""Gets the setup's name, steps done and steps in all."""


@dataclass(frozen=True)
class Trained:
    """A finished network.

    Attributes:
        network: answers (1, 1, Y, X) with (1, 3, Y - 2c, X - 2c), in eval mode on the CPU.
        seconds: wall time of its training, all attempts together.
        loss: mean of the last hundred steps.
    """

    setup: Setup
    network: nn.Module
    seconds: float
    loss: float


def learn(
    setup: Setup, networks: Path, *, seed: int = 0, progress: Progress | None = None
) -> Trained:
    """The setup's network: read back when it was finished, else trained, or trained to its end.

    Raises:
        InputError: the folder holds the network of another setup with this name.
    """
    folder = networks / f"{setup.name}-seed{seed}"
    kept = folder / CHECKPOINT
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(setup, folder, seed=seed, progress=progress)
    checkpoint = Checkpoint.load(kept)
    made = checkpoint.provenance
    if made["setup"] != _record(setup):
        raise InputError(
            f"{kept}: a network of another setup, expected {setup.name} as it is declared now; "
            "give another --out."
        )
    network = answering_part(checkpoint.network())
    return Trained(setup, network, made["seconds"], made["loss"])


def sample(setup: Setup, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """What one step sees: pixels (1, 1, read, read) float32, labels (1, window, window) int64."""
    random = np.random.default_rng((seed, step))
    axis, read = setup.axis, setup.read
    start = [int(n) for n in random.integers(setup.shifts, size=2)]
    answered = Box((0, 0), (read - 2 * axis.shrink,) * 2).shift(start)
    image = setup.picture.image(answered.grow((axis.shrink,) * 2))
    labels = np.full((read, read), IGNORED, np.int64)
    inside = tuple(slice(axis.shrink, axis.shrink + setup.window) for _ in range(2))
    seen = Box(answered.start, tuple(a + setup.window for a in start))
    labels[inside] = setup.picture.labels(seen)
    if setup.cells and isinstance(setup.picture, Discs):
        counted = axis.shrink + setup.cells * setup.picture.spacing
        labels[counted:] = labels[:, counted:] = IGNORED
    if setup.elastic:
        image, labels = bent(image, labels, seed=int(random.integers(2**31)))
    if setup.noise:
        image = image + random.normal(0, setup.noise, image.shape).astype(np.float32)
    ids = np.ascontiguousarray(labels[inside])
    return torch.from_numpy(image)[None], torch.from_numpy(ids)[None]


def bent(
    image: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Image cyx and labels yx after the project's elastic change, and no other."""
    from training.augmentation import OneView  # MONAI: seconds
    from training.sections import AugmentationSection

    off: dict[str, Any] = dict.fromkeys(("affine", "offset", "noise", "blur"), 0)
    section = AugmentationSection(
        **off, flip=False, rotate=False, gain=(1, 1), gamma=(1, 1), elastic=1
    )
    ids, index = np.unique(labels, return_inverse=True)  # floats hold small numbers only
    small = index.reshape(labels.shape).astype(np.float32)
    pixels, moved = OneView(section, ndim=2)(image, small, seed=seed)
    return pixels.numpy(), ids[moved.numpy()]


def _train(setup: Setup, folder: Path, *, seed: int, progress: Progress | None) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    network = build_network(setup.architecture, setup.kwargs).to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), setup.lr)
    done, spent, losses = _restore(folder / STATE, network, optimiser)
    started = saved = time.monotonic()
    answering = answering_part(network)
    for step in range(done, setup.steps):
        pixels, labels = (t.to(device) for t in sample(setup, seed=seed, step=step))
        answer = answering(pixels)[..., : setup.window, : setup.window]
        loss = MARGINS(answer, labels)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses = [*losses[-99:], float(loss.detach())]
        if progress is not None:
            progress(setup.name, step + 1, setup.steps)
        if time.monotonic() - saved > SECONDS_BETWEEN_STATES:
            saved = time.monotonic()
            _keep(folder / STATE, network, optimiser, (step + 1, spent + saved - started, losses))
    spent += time.monotonic() - started
    _finished(setup, network, seed=seed, seconds=spent, loss=float(np.mean(losses))).save(
        folder / CHECKPOINT
    )
    (folder / STATE).unlink(missing_ok=True)


Counters = tuple[int, float, list[float]]
"""Steps done, seconds spent, losses of the last hundred steps."""


def _restore(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Counters:
    if not path.exists():
        return 0, 0.0, []
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    step, seconds, losses = state["counters"]
    return int(step), float(seconds), list(losses)


def _keep(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, counters: Counters
) -> None:
    part = path.with_suffix(".part")
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({**state, "counters": list(counters)}, part)
    os.replace(part, path)


def _finished(
    setup: Setup, network: nn.Module, *, seed: int, seconds: float, loss: float
) -> Checkpoint:
    return Checkpoint(
        architecture=setup.architecture,
        kwargs=setup.kwargs,
        weights=network.state_dict(),
        delta_v=MARGINS.delta_v,
        delta_d=MARGINS.delta_d,
        normalisation=Normalisation(),
        axes="yx",
        voxel_size_um=None,
        clusterer=ClustererSettings("mean_shift"),
        provenance={
            "setup": _record(setup),
            "seed": seed,
            "seconds": round(seconds, 1),
            "loss": round(loss, 4),
            "torch": torch.__version__,
        },
    )


def _record(setup: Setup) -> Any:
    """The setup as JSON gives it back."""
    return json.loads(json.dumps(asdict(setup)))
