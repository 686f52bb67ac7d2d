"""What the sums by doubling of the local normalisation save, against the same with average pooling.

    python benchmarks/local_normalisation.py [--tile 636] [--threads 1] [--repeats 5]

Both networks are that of nuclei-fluo-2d (width 32, 3 levels, a window of 65 x 65) with the same
weights, and must agree, or the benchmark ends with an error. One round asks each of them, one after
the other, for a tile (torch, torch with bf16, ONNX Runtime) and for a training step (bf16,
channels_last, two patches). The table has medians over the rounds of the CPU's time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from packager.weights import write_onnx
from zoo_models.architectures.unet_valid import LocalNormalisation, UNetValid

RADIUS = 32
TOLERANCE = 1e-3
"""Of the two networks' embeddings, relative to their spread."""


class Pooled(nn.Module):
    """The sums of a window as average pooling computes them, 2r + 1 additions per axis."""

    def forward(self, x: Tensor) -> Tensor:
        window = 2 * RADIUS + 1
        columns = F.avg_pool2d(x, [window, 1], stride=1)
        means: Tensor = F.avg_pool2d(columns, [1, window], stride=1)
        return means * window**2


def networks() -> dict[str, UNetValid]:
    built = {}
    for name in ("average pooling", "doubling"):
        torch.manual_seed(0)
        network = UNetValid(width=32, levels=3, local_radius=RADIUS)
        if name == "average pooling":
            assert isinstance(network.normalise, LocalNormalisation)
            network.normalise.sums = nn.Sequential(Pooled())
        built[name] = network
    return built


def onnx_session(network: nn.Module, tile: Tensor, threads: int) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.onnx"
        write_onnx(network, tile, path, names=("input", "embeddings"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options)
    return lambda: session.run(None, {"input": tile.numpy()})


def training_step(network: UNetValid, patches: Tensor) -> Callable[[], object]:
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters())

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = network(patches)
        optimiser.zero_grad()
        embeddings.square().mean().backward()
        optimiser.step()

    return step


def tile_of(network: nn.Module, tile: Tensor, *, bf16: bool) -> Callable[[], object]:
    def predict() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embeddings: Tensor = network(tile)
        return embeddings

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tile", type=int, default=636, help="its side, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    both = networks()
    tile = torch.rand(1, 1, arguments.tile, arguments.tile)
    with torch.inference_mode():
        ours, pooled = (both[name].eval()(tile) for name in ("doubling", "average pooling"))
    apart = float((ours - pooled).abs().max() / ours.std())
    if apart > TOLERANCE:
        raise SystemExit(f"the networks differ by {apart:.2g} of their spread, at most {TOLERANCE}")
    patches = torch.rand(2, 1, 380, 380).to(memory_format=torch.channels_last)
    work: dict[str, dict[str, Callable[[], object]]] = {
        "a tile, torch": {n: tile_of(both[n], tile, bf16=False) for n in both},
        "a tile, torch, bf16": {n: tile_of(both[n], tile, bf16=True) for n in both},
        "a tile, ONNX Runtime": {n: onnx_session(both[n], tile, arguments.threads) for n in both},
    }
    trained = networks()
    work["a training step"] = {n: training_step(trained[n].train(), patches) for n in trained}

    print(f"{arguments.threads} thread(s), the networks differ by {apart:.1g} of their spread\n")
    print("| | average pooling | doubling | ratio |\n|---|---|---|---|")
    for name, sides in work.items():
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(arguments.repeats + 1):
            for side, run in sides.items():
                start = time.process_time()
                run()
                if turn:  # the first warms up
                    seconds[side].append(time.process_time() - start)
        before, after = (median(seconds[side]) for side in ("average pooling", "doubling"))
        print(f"| {name} | {before:.3f} s | {after:.3f} s | {before / after:.2f} |")


if __name__ == "__main__":
    main()
