"""The runtimes that can run a package's network, one class each.

| name        | weights            | devices   | bfloat16                                        |
| ----------- | ------------------ | --------- | ----------------------------------------------- |
| torchscript | torchscript        | all       | autocast                                        |
| compile     | pytorch_state_dict | cpu, cuda | autocast                                        |
| onnxruntime | onnx               | cpu, cuda | no                                              |
| openvino    | onnx               | cpu       | from the first convolution on, float32 before   |

Convolutions are what bfloat16 makes fast. A local normalisation before them is a small difference
of large numbers, of which 8 bits leave nothing (measured: 0.6 to 1.3 sigma wrong on a bright
background), so it stays float32 everywhere: autocast leaves its operations alone, and for OpenVINO
the graph is cut at the first convolution.

All are called with tiles (N, C, [Z,] Y, X) float32 and give (N, D, [Z,] Y, X) float32, which may be
the runtime's own memory: the next call overwrites it. Two calls
with the same tiles in the same order give the same bytes, whatever ran between: nothing here is
tuned while it runs. With another number of threads the last bits differ (oneDNN splits its sums by
them), and no runtime promises the same bytes in another batch: who needs them again keeps tile,
batch and threads. TensorFloat32 is off. One call at a time for each object.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.errors import InputError
from zoo_models.package_weights import PackageWeights

Tiles = NDArray[np.float32]

SHAPES_COMPILED = 64
"""Tile shapes that may be compiled, each by itself, before it is an error. An image has 2 per axis
and its batches."""


class TorchEngine:
    """Base of the two that run in torch: layout, precision, device."""

    name = ""

    def __init__(
        self, network: Any, precision: str, device: str, threads: int | None, *, ndim: int
    ) -> None:
        self.precision = precision
        self.device = device
        self._network = network
        self._threads = threads or torch.get_num_threads()
        self._layout = _layout(ndim)

    def __call__(self, tiles: Tiles) -> Tiles:
        torch.set_num_threads(self._threads)  # numba's loops change it, thread by thread
        with torch.inference_mode(), self._exactly():
            on_device = torch.from_numpy(tiles).to(self.device)
            output = self._network(on_device.contiguous(memory_format=self._layout))
            # contiguous: what is cut out of it later is read row by row
            array: Tiles = output.float().contiguous().cpu().numpy()
        return array

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        kind = torch.device(self.device).type
        with ExitStack() as stack:
            if kind == "cuda":
                flags = torch.backends.cudnn.flags
                stack.enter_context(flags(enabled=True, deterministic=True, allow_tf32=False))
            half = self.precision == "bfloat16"
            stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=half))
            yield


class TorchScriptEngine(TorchEngine):
    """The traced network, batch norms folded into the convolutions.

    Without fusion: it would change the arithmetic after the first calls, and no call would give the
    bytes of the one before.
    """

    name = "torchscript"

    def __init__(
        self, weights: PackageWeights, precision: str, device: str, threads: int | None
    ) -> None:
        script = _laid_out(weights.torchscript(device), weights.geometry.ndim)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            frozen = torch.jit.freeze(script.eval())
        # For all of the process; torch.jit.fuser, which is for a block of code, warns.
        torch._C._jit_set_texpr_fuser_enabled(False)
        super().__init__(frozen, precision, device, threads, ndim=weights.geometry.ndim)


class CompileEngine(TorchEngine):
    """The network class through torch.compile, weights frozen; half a minute for each new shape."""

    name = "compile"

    def __init__(
        self, weights: PackageWeights, precision: str, device: str, threads: int | None
    ) -> None:
        if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
            raise InputError(
                "The engine compile needs a C++ compiler, and there is none; install g++, or take "
                "another --engine."
            )
        network = _laid_out(weights.network(device), weights.geometry.ndim)
        with warnings.catch_warnings():  # of what torch itself imports here
            warnings.simplefilter("ignore", DeprecationWarning)
            compiled = torch.compile(network, dynamic=False, options={"freezing": True})
        super().__init__(compiled, precision, device, threads, ndim=weights.geometry.ndim)

    def __call__(self, tiles: Tiles) -> Tiles:
        import torch._dynamo

        # past the limit torch would go on uncompiled, with other bytes
        limits = {"recompile_limit": SHAPES_COMPILED, "fail_on_recompile_limit_hit": True}
        with torch._dynamo.config.patch(limits):
            return super().__call__(tiles)


class OnnxRuntimeEngine:
    """The ONNX graph in ONNX Runtime."""

    name = "onnxruntime"
    precision = "float32"

    def __init__(
        self, weights: PackageWeights, precision: str, device: str, threads: int | None
    ) -> None:
        onnxruntime: Any = _imported("onnxruntime", "onnxruntime")
        if precision != "float32":
            raise InputError(
                "The engine onnxruntime has no bfloat16 convolutions; take --precision float32, or "
                "another --engine."
            )
        provider, options = _provider(device, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or torch.get_num_threads()
        settings.use_deterministic_compute = True
        self.device = device
        self._session = onnxruntime.InferenceSession(
            weights.read("onnx"), settings, providers=[(provider, options)]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, tiles: Tiles) -> Tiles:
        output: Tiles = self._session.run(None, {self._input: tiles})[0]
        return output


class OpenVinoEngine:
    """The ONNX graph in OpenVINO; with bfloat16 in two parts, see the module's docstring."""

    name = "openvino"

    def __init__(
        self, weights: PackageWeights, precision: str, device: str, threads: int | None
    ) -> None:
        openvino: Any = _imported("openvino", "spoco-zoo[openvino]")
        if device != "cpu":
            raise InputError(
                f"The engine openvino runs on the cpu, found --device {device}; take cpu, or "
                "another --engine."
            )
        self.device, self.precision = device, precision
        core = openvino.Core()
        model = core.read_model(weights.read("onnx"), b"")
        settings = {
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # or every process would compute on the first cores
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._first = None
        if precision == "bfloat16":
            first, model = _cut_at_convolutions(openvino, model)
            self._first = core.compile_model(first, "CPU", settings)
            settings["INFERENCE_PRECISION_HINT"] = "bf16"
        self._network = core.compile_model(model, "CPU", settings)

    def __call__(self, tiles: Tiles) -> Tiles:
        inputs = [tiles] if self._first is None else list(self._first([tiles]).values())
        # share: a copy of the answer takes 4 % of the time, in bfloat16 8 %
        output: Tiles = self._network(inputs, share_outputs=True)[0]
        return output


Runtime = TorchScriptEngine | CompileEngine | OnnxRuntimeEngine | OpenVinoEngine

RUNTIMES: dict[str, Callable[[PackageWeights, str, str, int | None], Runtime]] = {
    "torchscript": TorchScriptEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
    "compile": CompileEngine,
}


def _layout(ndim: int) -> torch.memory_format:
    return torch.channels_last if ndim == 2 else torch.contiguous_format


def _laid_out(network: torch.nn.Module, ndim: int) -> torch.nn.Module:
    """The network with its tensors in the layout of its tiles."""
    moved: torch.nn.Module = network.to(memory_format=_layout(ndim))  # type: ignore[call-overload]
    return moved


def _imported(module: str, requirement: str) -> Any:
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"The engine {module} is not installed; run: pip install '{requirement}', or take "
            "another --engine."
        )
    return importlib.import_module(module)


def _provider(device: str, available: list[str]) -> tuple[str, dict[str, Any]]:
    """ONNX Runtime's name for a device, and its options."""
    kind, _, number = device.partition(":")
    name = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if name is None or name not in available:
        raise InputError(
            f"The installed onnxruntime cannot use --device {device} (it has "
            f"{', '.join(available)}); install onnxruntime-gpu for cuda, or take another --engine."
        )
    options = {"device_id": int(number or 0), "use_tf32": 0} if kind == "cuda" else {}
    return name, options


def _cut_at_convolutions(openvino: Any, model: Any) -> tuple[Any, Any]:
    """Two models: up to what the first convolutions take, and from there on.

    A teacher beside the network has a first convolution of its own, so there may be several.
    """
    behind: set[str] = set()
    first = []
    for op in model.get_ordered_ops():
        sources = [port.get_source_output() for port in op.inputs()]
        below = any(source.get_node().get_friendly_name() in behind for source in sources)
        convolution = op.get_type_name() in ("Convolution", "GroupConvolution")
        if below or convolution:
            behind.add(op.get_friendly_name())
        if convolution and not below:
            first.append(op)
    cut = list(
        {source.get_node().get_friendly_name(): source for source in map(_taken, first)}.values()
    )
    before = openvino.Model(cut, model.get_parameters(), "before").clone()
    starts = []
    for source in cut:
        start = openvino.opset13.parameter(source.get_partial_shape(), np.float32)
        for op in first:
            if _taken(op) == source:
                op.input(0).replace_source_output(start.output(0))
        starts.append(start)
    return before, openvino.Model(model.get_results(), starts, "after")


def _taken(op: Any) -> Any:
    return op.input(0).get_source_output()
