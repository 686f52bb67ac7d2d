"""Packages as others write them: tiny networks, a description by hand, one fault each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

HEAD = """# written by hand
format_version: {version}
type: model
name: Third party
description: Made for tests.
authors: [{{name: A Person}}]
cite: [{{text: Nobody, doi: 10.48550/arXiv.2103.14572}}]
license: MIT
tags: [unet]
documentation: README.md
timestamp: '2023-01-01T00:00:00+00:00'
"""


class Same(nn.Module):
    """Zero-padded, one pooling by 2: period 2, output of the input's size."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 4, 3, padding=1)
        self.middle = middle or nn.Identity()
        self.coarse = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.middle(torch.tanh(self.fine(x)))
        coarse = torch.tanh(self.coarse(nn.functional.avg_pool2d(fine, 2)))
        answer: torch.Tensor = self.head(torch.cat([fine, self.up(coarse)], 1))
        return answer


class Two(nn.Module):
    """Two images in, two out: one of the input's size, one of twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 5, padding=2)
        self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.tanh(self.a(x)) + torch.tanh(self.b(y))
        return both, self.up(both)


class Wide(nn.Sequential):
    """Looks 255 pixels far, and the farther the fainter: dilations 1, 2, 4, ... 128."""

    def __init__(self) -> None:
        reach = [2**i for i in range(8)]
        super().__init__(nn.Conv2d(1, 2, 1), *(Faint(dilation=d) for d in reach))


class Faint(nn.Conv2d):
    """Adds a faint dilated convolution to its input."""

    def __init__(self, dilation: int) -> None:
        super().__init__(2, 2, 3, padding=dilation, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * super().forward(x)


def axes_in(minimum: int, step: int, *, channels: int = 1) -> str:
    size = f"{{min: {minimum}, step: {step}}}" if step else f"{minimum}"
    space = "".join(f"      - {{type: space, id: {n}, size: {size}}}\n" for n in "yx")
    names = ", ".join(f"c{i}" for i in range(channels))
    return f"      - type: batch\n      - {{type: channel, channel_names: [{names}]}}\n{space}"


def axes_out(reference: str, channels: int, extra: str) -> str:
    space = "".join(
        f"      - type: space  # {n}\n        id: {n}\n"
        f"        size: {{tensor_id: {reference}, axis_id: {n}{_offset(extra)}}}\n" + _rest(extra)
        for n in "yx"
    )
    names = ", ".join(f"d{i}" for i in range(channels))
    return f"      - type: batch\n      - {{type: channel, channel_names: [{names}]}}\n{space}"


def _offset(extra: str) -> str:
    return "".join(f", {p}" for p in extra.split(";") if p.startswith("offset"))


def _rest(extra: str) -> str:
    parts = [p for p in extra.split(";") if p and not p.startswith("offset")]
    return "".join(f"        {p}\n" for p in parts)


class Maker:
    """Writes packages into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        network: nn.Module,
        *,
        minimum: int = 32,
        step: int = 4,
        extra: str = "halo: 6",
        size: int = 64,
        preprocessing: str = "",
        weights: Sequence[str] = ("torchscript",),
    ) -> Path:
        """Format 0.5, one input `raw`, one output `out`; `extra`: lines of its space axes, by ;"""
        image = self._files(network, [1], size, weights)
        channels = int(image[0].shape[1])
        text = HEAD.format(version="0.5.3")
        steps = f"    preprocessing: {preprocessing}\n" if preprocessing else ""
        text += f"inputs:\n  - id: raw\n    axes:\n{axes_in(minimum, step)}"
        text += f"    test_tensor: {{source: in0.npy}}\n    data: {{type: float32}}\n{steps}"
        text += f"outputs:\n  - id: out\n    axes:\n{axes_out('raw', channels, extra)}"
        text += "    test_tensor: {source: out0.npy}\n    data: {type: float32}\n"
        return self._write(text + self._weights(weights))

    def old(self, network: nn.Module, *, halo: int) -> Path:
        """Format 0.4."""
        channels = int(self._files(network, [1], 64, ("torchscript",))[0].shape[1])
        shape = "{min: [1, 1, 32, 32], step: [0, 0, 4, 4]}"
        text = HEAD.format(version="0.4.9") + (
            "inputs:\n  - name: raw\n    axes: bcyx\n    data_type: float32\n"
            f"    shape: {shape}\n"
            "outputs:\n  - name: out\n    axes: bcyx\n    data_type: float32\n"
            f"    halo: [0, 0, {halo}, {halo}]\n"
            "    shape: {reference_tensor: raw, scale: [1, 0, 1, 1], "
            f"offset: [0, {channels / 2:g}, 0, 0]}}\n"
            "test_inputs: [in0.npy]\ntest_outputs: [out0.npy]\n"
            "weights:\n  torchscript: {source: w.torchscript.pt, pytorch_version: 2.6.0}\n"
        )
        return self._write(text)

    def two(self, network: nn.Module) -> Path:
        """Two inputs, and two outputs of which the second has twice the size."""
        self._files(network, [1, 1], 64, ("torchscript",))
        text = HEAD.format(version="0.5.3") + "inputs:\n"
        for i, name in enumerate(("raw", "other")):
            text += f"  - id: {name}\n    axes:\n{axes_in(32, 4)}"
            text += f"    test_tensor: {{source: in{i}.npy}}\n    data: {{type: float32}}\n"
        text += "outputs:\n"
        for i, (channels, extra) in enumerate([(2, "halo: 4"), (1, "scale: 0.5")]):
            text += f"  - id: out{i}\n    axes:\n{axes_out('raw', channels, extra)}"
            text += f"    test_tensor: {{source: out{i}.npy}}\n    data: {{type: float32}}\n"
        return self._write(text + self._weights(("torchscript",)))

    def _files(
        self, network: nn.Module, inputs: Sequence[int], size: int, weights: Sequence[str]
    ) -> list[torch.Tensor]:
        torch.manual_seed(3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.3)
        random = np.random.default_rng(0)
        images = [
            torch.from_numpy(random.normal(1, 2, (1, c, size, size)).astype(np.float32))
            for c in inputs
        ]
        network.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = network(*images)
            answers = list(answer) if isinstance(answer, tuple) else [answer]
            if "torchscript" in weights:
                traced = torch.jit.trace(network, tuple(images), check_trace=False)
                torch.jit.save(traced, str(self.folder / "w.torchscript.pt"))
            if "onnx" in weights:
                dynamic = {0: "b", 2: "y", 3: "x"}
                torch.onnx.export(
                    network,
                    tuple(images),
                    str(self.folder / "w.onnx"),
                    input_names=["raw"],
                    output_names=["out"],
                    dynamic_axes={"raw": dynamic, "out": dynamic},
                    dynamo=False,
                    opset_version=17,
                )
        if "pytorch_state_dict" in weights:
            torch.save(network.state_dict(), self.folder / "w.pt")
        for kind, tensors in (("in", images), ("out", answers)):
            for i, tensor in enumerate(tensors):
                np.save(self.folder / f"{kind}{i}.npy", tensor.numpy())
        return answers

    def _weights(self, weights: Sequence[str]) -> str:
        entries = {
            "torchscript": "{source: w.torchscript.pt, pytorch_version: 2.6.0}",
            "onnx": "{source: w.onnx, opset_version: 17}",
            "pytorch_state_dict": "{source: w.pt, pytorch_version: 2.6.0, "
            "architecture: {source: arch.py, callable: Net}}",
        }
        return "weights:\n" + "".join(f"  {name}: {entries[name]}\n" for name in weights)

    def _write(self, text: str) -> Path:
        (self.folder / "README.md").write_text("# Third party\n")
        (self.folder / "rdf.yaml").write_text(text)
        return self.folder


@pytest.fixture
def make_third(tmp_path: Path) -> Maker:
    """Packages of others, written into an empty folder."""
    folder = tmp_path / "third"
    folder.mkdir()
    return Maker(folder)


Make = Callable[..., Any]
