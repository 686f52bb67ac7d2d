"""The declared pre-processing, run by bioimageio.core's own operators, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packager.audit.model import Content, Model, Tensor, read_bytes
from packager.audit.runners import declared_layout

Array = NDArray[np.float32]

PER_SAMPLE = ("zero_mean_unit_variance", "scale_range", "scale_mean_variance")
"""Steps that take their statistics from the sample that they are given."""


def test_tensors(model: Model, content: Content) -> dict[str, Array]:
    """The test tensor of every input, in declared layout; noise of the least size without one."""
    random = np.random.default_rng(0)
    found = {}
    for tensor, entry in zip(model.inputs, model.description.inputs, strict=True):
        given = _load(content, entry.test_tensor)
        if given is None or given.ndim != len(tensor.axes):
            given = random.standard_normal([a.minimum for a in tensor.axes]).astype(np.float32)
        found[tensor.id] = given
    return found


def _load(content: Content, entry: Any) -> Array | None:
    import io

    if entry is None or not str(entry.source).endswith(".npy"):
        return None
    try:
        data = np.load(io.BytesIO(read_bytes(content, str(entry.source))), allow_pickle=False)
    except (KeyError, OSError, ValueError):
        return None  # the zoo's own test names missing files; noise does for an audit
    return np.asarray(data, np.float32)


def preprocessing(model: Model, held: Mapping[str, Array]) -> Callable[[Array], Array]:
    """Raw image c(z)yx -> what the network is given; statistics are those of the given image."""
    tensor = model.image

    def run(image: Array) -> Array:
        if not any(t.processing for t in model.inputs):
            return image
        done = _processed(model, {**held, tensor.id: declared_layout(tensor, image)})
        return _to_canonical(tensor, done[tensor.id])

    return run


def prepared(model: Model, held: Mapping[str, Array]) -> dict[str, Array]:
    """The test tensors as the network is given them."""
    return _processed(model, held) if any(t.processing for t in model.inputs) else dict(held)


def _processed(model: Model, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Core's operators on all inputs. Post-processing is left out: it may be packaged Python."""
    from bioimageio.core import Sample
    from bioimageio.core import Tensor as CoreTensor
    from bioimageio.core.proc_setup import setup_pre_and_postprocessing

    outputs = [o.model_copy(update={"postprocessing": []}) for o in model.description.outputs]
    bare = model.description.model_copy(update={"outputs": outputs})
    dims: dict[str, Any] = {t.id: tuple(a.id for a in t.axes) for t in model.inputs}

    def sample() -> Sample:
        members: Any = {
            name: CoreTensor.from_numpy(array.copy(), dims=dims[name])
            for name, array in tensors.items()
        }
        return Sample(members=members, stat={}, id="audit")

    given = sample()
    for step in setup_pre_and_postprocessing(bare, [sample()]).pre:
        step(given)
    members: Any = given.members
    return {name: np.asarray(members[name].to_numpy(), np.float32) for name in tensors}


def _to_canonical(tensor: Tensor, array: Array) -> Array:
    batch = [i for i, a in enumerate(tensor.axes) if a.kind == "batch"]
    folded = [i for i, a in enumerate(tensor.axes) if a.kind not in ("batch", "space")]
    space = [i for i, a in enumerate(tensor.axes) if a.kind == "space"]
    moved = array.transpose([*batch, *folded, *space])
    moved = moved[0] if batch else moved
    return np.ascontiguousarray(moved.reshape([-1, *moved.shape[len(folded) :]]))


def tile_dependence(process: Callable[[Array], Array], image: Array) -> float:
    """How far the pre-processed part of an image is from the pre-processing of that part.

    Returns:
        The largest difference, in standard deviations of the whole pre-processed image.
    """
    half = tuple(slice(0, max(1, n // 2)) for n in image.shape[1:])
    whole = process(image)
    part = process(np.ascontiguousarray(image[:, *half]))
    spread = float(whole.std()) or 1.0
    return float(np.abs(whole[:, *half] - part).max()) / spread
