"""One network, three weight files, each proved to give the same answer as the network itself.

| format             | read by                            | how it is written                 |
| ------------------ | ---------------------------------- | --------------------------------- |
| pytorch_state_dict | core, ilastik, with its source     | tensors under the wrapper's names |
| torchscript        | core, ilastik, JDLL (libtorch 2.0) | traced: no scripted interpolation |
| onnx               | core, other runtimes               | opset 18, any size, any batch     |

A trace remembers the sizes that Python computed from shapes while it was made. The networks here
crop and pad by constants, so nothing is remembered; `largest_difference` checks that at sizes that
were never traced. A batch norm in training mode would normalise by the tile's own statistics, and
so a network in training mode is refused.
"""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from packager.consumers.placement import DeclaredAxis
from zoo_models.errors import ExportError

ONNX_OPSET = 18
ONNX_IR_VERSION = 8
"""The file format that came with opset 18: older runtimes refuse newer ones."""

WeightFormat = Literal["pytorch_state_dict", "torchscript", "onnx"]
WEIGHTS: dict[WeightFormat, str] = {
    "pytorch_state_dict": "weights.pt",
    "torchscript": "weights.torchscript.pt",
    "onnx": "weights.onnx",
}
"""Names of the weight files in a package."""


def refuse_training_mode(network: torch.nn.Module) -> None:
    """Raises:
    ExportError: any part of the network is in training mode.
    """
    training = [name or "the network" for name, part in network.named_modules() if part.training]
    if training:
        raise ExportError(
            f"Found {len(training)} part(s) in training mode (first: {training[0]}); a batch norm "
            "would use the tile's statistics; call network.eval() before export."
        )


def write_state_dict(network: torch.nn.Module, path: Path) -> None:
    """The network's tensors, on the CPU, readable with `weights_only=True`."""
    refuse_training_mode(network)
    torch.save({k: v.detach().cpu().clone() for k, v in network.state_dict().items()}, path)


def write_torchscript(network: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """Trace the network. Nothing may depend on the sizes of `example` (B, C, [Z,] Y, X).

    The file's bytes repeat from one process to the next (torch numbers the classes it makes).

    Raises:
        ExportError: training mode, or Python saw a size while tracing.
    """
    refuse_training_mode(network)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always", torch.jit.TracerWarning)
        traced = torch.jit.trace(network, example, check_trace=False)
    frozen = [
        str(w.message)
        for w in caught
        if issubclass(w.category, torch.jit.TracerWarning)
        and Path(w.filename) != Path(torch.nn.functional.__file__)  # torch checking its input
    ]
    if frozen:
        raise ExportError(
            f"The network computes with sizes in Python ({frozen[0].splitlines()[0]}), which a "
            "trace would freeze; crop and pad by constants."
        )
    traced.save(str(path))
    _forget_sources(path)


def write_scripted(network: torch.nn.Module, path: Path) -> None:
    """Script a graph that has loops; a traced network inside it stays a trace.

    libtorch 2.0 cannot load a scripted interpolation, so networks are traced, and only what is
    around them is scripted.

    Raises:
        ExportError: training mode.
    """
    refuse_training_mode(network)
    torch.jit.script(network).save(str(path))
    _forget_sources(path)


def _forget_sources(path: Path) -> None:
    """Rewrite a TorchScript file without its debug records: they hold paths of this machine.

    torch aligns its records to 64 bytes by an extra field "FB" in each header; so does this.
    """
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for record in old.infolist():
            if record.filename.endswith(".debug_pkl"):
                continue
            entry = zipfile.ZipInfo(record.filename)
            assert new.fp is not None
            header = new.fp.tell() + 30 + len(record.filename.encode()) + 4
            padding = -header % 64
            entry.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            new.writestr(entry, old.read(record))


def write_onnx(
    network: torch.nn.Module, example: torch.Tensor, path: Path, *, names: tuple[str, str]
) -> None:
    """Export with dynamic batch and space axes, at opset 18, without paths of this machine.

    `names`: of the tensors it takes and gives.

    Raises:
        ExportError: training mode, or the graph needs a newer opset.
    """
    refuse_training_mode(network)
    axes = [0, *range(2, example.ndim)]
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=ONNX_OPSET,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes=({axis: torch.export.Dim.DYNAMIC for axis in axes},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    opset = max((o.version for o in model.opset_import if o.domain == ""), default=0)
    if opset > ONNX_OPSET:
        raise ExportError(
            f"The ONNX file needs opset {opset}; consumers read up to {ONNX_OPSET}; use another "
            "version of torch or onnxscript."
        )
    _strip(model, ["batch", "channel", *"zyx"[-(example.ndim - 2) :]])
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto, axes: Sequence[str]) -> None:
    """Name the free axes, and drop stack traces: they hold the paths of the exporting machine."""
    model.ir_version = ONNX_IR_VERSION
    for holder in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in zip(axes, value.type.tensor_type.shape.dim, strict=True):
            if dim.HasField("dim_param"):
                dim.dim_param = axis


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter warns of its own internals and of packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def untraced_shapes(axes: Sequence[DeclaredAxis], channels: int) -> tuple[tuple[int, ...], ...]:
    """Input shapes on the declared grid that no test tensor has: the smallest tile and others."""
    small = tuple(axis.minimum for axis in axes)
    longer = tuple(a.minimum + a.step * n for a, n in zip(axes, (4, 1, 2), strict=False))
    return ((2, channels, *small), (1, channels, *longer))


def largest_difference(
    network: torch.nn.Module, path: Path, shapes: Sequence[tuple[int, ...]]
) -> float:
    """Run the written file by its own runtime and by nothing of ours; compare with the network.

    Returns the largest absolute difference relative to the largest absolute value, over all
    `shapes`, on seeded noise in 0..1.

    Raises:
        ExportError: the file cannot be loaded, or gives an output of another shape.
    """
    try:
        answer = runner(path)
        return max(_relative_difference(network, answer, shape) for shape in shapes)
    except ExportError:
        raise
    except Exception as error:  # each runtime raises its own
        raise ExportError(f"{path.name} does not run: {str(error).splitlines()[0]}") from error


def runner(path: Path) -> Any:
    """What a .pt TorchScript or an .onnx file alone computes: numpy array -> numpy array."""
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(io.BytesIO(path.read_bytes()), map_location="cpu")
    return lambda x: script(torch.from_numpy(x)).detach().numpy()


def _relative_difference(network: torch.nn.Module, answer: Any, shape: tuple[int, ...]) -> float:
    noise: NDArray[np.float32] = np.random.default_rng(0).random(shape, np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(noise)).numpy()
        found = answer(noise)
    if found.shape != expected.shape:
        raise ExportError(f"found an output of shape {found.shape}, expected {expected.shape}")
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-6))
