"""Weight files as functions of numpy arrays, and one image input and one output seen as c(z)yx.

TorchScript first, then ONNX; neither runs Python of the package. A state dict needs the packaged
architecture, which is Python, and so it is loaded only when the user trusts the package.

    image c(z)yx -> pre-processing -> all inputs in declared order -> network -> outputs -> c(z)yx
                                      ^ the others: held
"""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from packager.audit.model import Axis, Content, Model, Tensor, Weights, read_bytes
from zoo_models.errors import SpocoZooError

Array = NDArray[np.float32]
Network = Callable[[Sequence[Array]], Sequence[NDArray[Any]]]
"""All inputs in declared order and layout -> all outputs likewise."""

RUNNABLE = ("torchscript", "onnx", "pytorch_state_dict")
"""In the order of preference: what needs no trust comes first."""


class NetworkStops(SpocoZooError):
    """The network cannot take an input of this shape, or answers with another kind of thing."""


@dataclass(frozen=True)
class Unusable:
    """A weight file that could not be loaded, and why."""

    form: str
    reason: str


def load_network(
    model: Model, content: Content, *, trust: bool
) -> tuple[Network | None, str, tuple[Unusable, ...]]:
    """The first weight file that loads, its format, and those before it that did not."""
    unusable = []
    found = {w.form: w for w in model.weights}
    for form in RUNNABLE:
        if form not in found:
            continue
        if form == "pytorch_state_dict" and not trust:
            reason = "needs the package's own Python; give --trust if you trust its author"
            unusable.append(Unusable(form, reason))
            continue
        try:
            return _LOADERS[form](model, content, found[form]), form, tuple(unusable)
        except Exception as error:  # whatever a foreign file makes a library raise
            unusable.append(Unusable(form, first_line(error)))
    return None, "", tuple(unusable)


def first_line(error: BaseException) -> str:
    """The first line that says something, at most 200 characters."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:200]


def _bytes(content: Content, weights: Weights) -> bytes:
    if "://" in weights.source:
        raise ValueError(f"lies at {weights.source}; download the package with its files")
    data = read_bytes(content, weights.source)
    if weights.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError("other bytes than its description tells (sha256)")
    return data


def _torchscript(model: Model, content: Content, weights: Weights) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.load(io.BytesIO(_bytes(content, weights)), map_location="cpu")
    return _torch(network.eval())


def _state_dict(model: Model, content: Content, weights: Weights) -> Network:
    """Runs Python of the package: only for those who trust it."""
    entry = model.description.weights.pytorch_state_dict
    make, kwargs = _architecture(entry.architecture, content), entry.architecture.kwargs
    network = make(**kwargs)
    state = torch.load(io.BytesIO(_bytes(content, weights)), "cpu", weights_only=True)
    network.load_state_dict(state)
    return _torch(network.eval())


def _architecture(entry: Any, content: Content) -> Callable[..., torch.nn.Module]:
    if hasattr(entry, "import_from"):
        module = importlib.import_module(str(entry.import_from))
    else:
        sha = None if entry.sha256 is None else str(entry.sha256)
        source = _bytes(content, Weights("architecture", str(entry.source), sha))
        module = ModuleType(f"audited_{hashlib.sha256(source).hexdigest()[:16]}")
        sys.modules[module.__name__] = module  # dataclasses and pickles look there
        exec(compile(source, str(entry.source), "exec"), module.__dict__)
    make: Callable[..., torch.nn.Module] = getattr(module, str(entry.callable))
    return make


def _torch(network: Callable[..., Any]) -> Network:
    def run(inputs: Sequence[Array]) -> Sequence[NDArray[Any]]:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a foreign network's own
            answer = network(*(torch.from_numpy(np.ascontiguousarray(a)) for a in inputs))
        answers = answer if isinstance(answer, (tuple, list)) else [answer]
        return [a.detach().cpu().numpy() for a in answers]

    return run


def _onnx(model: Model, content: Content, weights: Weights) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures are raised, not printed
    session = onnxruntime.InferenceSession(
        _bytes(content, weights), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Sequence[Array]) -> Sequence[NDArray[Any]]:
        answers: Sequence[NDArray[Any]] = session.run(None, dict(zip(names, inputs, strict=True)))
        return answers

    return run


_LOADERS: Mapping[str, Callable[[Model, Content, Weights], Network]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
    "pytorch_state_dict": _state_dict,
}


@dataclass(frozen=True)
class Seen:
    """A network seen from its image input to one of its outputs.

    Attributes:
        held: test tensors of the other inputs, in declared layout; an input that must follow the
            image's size is held at its mean instead, so that no place in it tells where it is.
        number: of the output in the description.
    """

    network: Network
    model: Model
    held: Mapping[str, Array]
    number: int

    @property
    def output(self) -> Tensor:
        return self.model.outputs[self.number]

    def __call__(self, image: Array) -> Array:
        """Pre-processed c(z)yx -> channels(z)yx, both float32.

        Raises:
            NetworkStops: it does not take this size.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[Array]) -> list[Array]:
        """Several images in one batch, where the input has a batch axis."""
        tensor, size = self.model.image, images[0].shape[1:]
        stacked = np.concatenate([declared_layout(tensor, image) for image in images])
        inputs = [
            stacked if t.id == tensor.id else self._held(t, size, len(images))
            for t in self.model.inputs
        ]
        try:
            answers = self.network(inputs)
        except Exception as error:  # any kind: it comes from inside a foreign network
            shape = " x ".join(map(str, size))
            raise NetworkStops(f"an input of {shape} pixels: {_cause(error)}") from error
        if len(answers) <= self.number:
            raise NetworkStops(
                f"{len(answers)} answer(s) where {len(self.model.outputs)} outputs are declared"
            )
        return _canonical(self.output, tensor, np.asarray(answers[self.number]), len(images))

    def _held(self, tensor: Tensor, size: Sequence[int], number: int) -> Array:
        held, image = self.held[tensor.id], self.model.image
        follows = {axis.id: n for axis, n in zip(image.space, size, strict=True)}
        shape = [_follow(a, held.shape[i], image, follows) for i, a in enumerate(tensor.axes)]
        if tuple(shape) != held.shape:
            held = np.full(shape, held.mean(), held.dtype)
        if tensor.axes and tensor.axes[0].kind == "batch" and number > 1:
            held = np.repeat(held, number, axis=0)
        return held


def _follow(axis: Axis, given: int, image: Tensor, follows: Mapping[str, int]) -> int:
    """Size of an axis of another input when the image's axes have the sizes `follows`."""
    if axis.reference and axis.reference[0] == image.id and axis.reference[1] in follows:
        return int(follows[axis.reference[1]] * axis.scale) + axis.offset
    if axis.kind == "space" and axis.step and axis.id in follows:
        own = next(a for a in image.space if a.id == axis.id)
        return axis.minimum + (follows[axis.id] - own.minimum) * axis.step // max(own.step, 1)
    return given


def declared_layout(tensor: Tensor, image: Array) -> Array:
    """c(z)yx -> the axes of the description, in their order."""
    sizes = iter(image.shape[1:])
    folded = [a.minimum for a in tensor.folded]
    space = [next(sizes) for _ in tensor.space]
    spread = image.reshape([1, *folded, *space])
    order = [a for a in tensor.axes if a.kind == "batch"]
    has_batch = bool(order)
    order += [*tensor.folded, *tensor.space]
    spread = spread if has_batch else spread[0]
    return np.ascontiguousarray(spread.transpose([order.index(a) for a in tensor.axes]))


def _canonical(output: Tensor, image: Tensor, answer: NDArray[Any], number: int) -> list[Array]:
    """The declared layout -> one channels(z)yx per image of the batch, axes in the input's order.

    Raises:
        NetworkStops: the answer has another number of axes than declared.
    """
    if answer.ndim != len(output.axes):
        raise NetworkStops(
            f"an answer of {answer.ndim} axes where {len(output.axes)} are declared for {output.id}"
        )
    batch = [i for i, a in enumerate(output.axes) if a.kind == "batch"]
    folded = [i for i, a in enumerate(output.axes) if a.kind not in ("batch", "space")]
    space = [output.axes.index(match(output, axis, image)) for axis in image.space]
    moved = answer.transpose([*batch, *folded, *space])
    moved = moved if batch else moved[None]
    shape = [moved.shape[0], -1, *moved.shape[moved.ndim - len(space) :]]
    flat = moved.reshape(shape).astype(np.float32)
    return [flat[i] for i in range(min(number, len(flat)))]


def match(output: Tensor, axis: Axis, image: Tensor) -> Axis:
    """The output's axis that goes along the image's `axis`: by reference, else by name.

    Raises:
        NetworkStops: there is none.
    """
    for candidate in output.space:
        if candidate.reference == (image.id, axis.id):
            return candidate
    for candidate in output.space:
        if candidate.id == axis.id:
            return candidate
    raise NetworkStops(f"output {output.id} has no axis along the image's {axis.id}")


def _cause(error: Exception) -> str:
    """What a network says: the last line of TorchScript's traceback, the first of others."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("RuntimeError:")]
    return (told[-1].removeprefix("RuntimeError: ") if told else first_line(error))[:200]
