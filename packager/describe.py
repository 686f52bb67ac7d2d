"""The package's description file: what a consumer must know to place tiles and run the network.

Written for the format version that all consumers read (bioimageio.core, ilastik, JDLL): 0.5.9, with
`documentation` and `covers` as plain strings. The library's own writer would raise the version and
turn both into mappings, which ilastik's and JDLL's readers refuse; so the file is written here, and
validated by the library afterwards.

One form of geometry places tiles right in every consumer:

    inputs[0].axes[y]    size {min, step}                 the same range on all space axes
    outputs[0].axes[y]   size = the input's, halo         no scale, no offset
    inputs[0].pad        left out: core mirrors then, and spec 0.5.9 refuses the key
    preprocessing        fixed constants                  statistics would differ between tiles
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from ruyaml import YAML

from packager.card import Author, Card
from packager.weights import INPUT, ONNX_OPSET, OUTPUT
from zoo_models.checkpoint import ARCHITECTURES, Checkpoint
from zoo_models.postprocessing import CLUSTERERS

FORMAT_VERSION = "0.5.9"
CONFIG_VERSION = 1
"""Version of the layout of `config.spoco_zoo`."""

RDF = "rdf.yaml"
README = "README.md"
COVER = "cover.png"
STATE_DICT = "weights.pt"
TORCHSCRIPT = "weights.torchscript.pt"
ONNX = "weights.onnx"
WeightFormat = Literal["pytorch_state_dict", "torchscript", "onnx"]
WEIGHTS: dict[WeightFormat, str] = {
    "pytorch_state_dict": STATE_DICT,
    "torchscript": TORCHSCRIPT,
    "onnx": ONNX,
}
TENSORS = {
    "test_input": "test_input.npy",
    "test_output": "test_output.npy",
    "sample_input": "sample_input.tif",
    "sample_output": "sample_output.tif",
}

Entry = dict[str, Any]
"""A mapping of the description file; it leaves this module only as text."""


@dataclass(frozen=True)
class Digests:
    """sha256 of every file of the package, and of the checkpoint it was made from."""

    files: Mapping[str, str]
    checkpoint: str

    def of(self, name: str) -> Entry:
        """`name` as the description refers to a file."""
        return {"source": name, "sha256": self.files[name]}


def describe(checkpoint: Checkpoint, card: Card, digests: Digests) -> str:
    """The text of rdf.yaml.

    All files that `digests` names lie beside it in the package. Sources: bioimage.io model
    description 0.5, and what its consumers were seen to do.
    """
    content = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": card.title,
        "description": card.description,
        "version": card.version,
        "timestamp": f"{card.released.isoformat()}T00:00:00+00:00",
        "authors": [_person(author) for author in card.authors],
        "maintainers": [m.model_dump(exclude_none=True) for m in card.maintainers],
        "license": card.licence,
        "cite": [{"text": c.text, "doi": c.doi} for c in card.citations],
        "tags": list(card.tags),
        "documentation": README,
        "covers": [COVER],
        "attachments": [digests.of(f"{checkpoint.clusterer.name}.py")],
        "inputs": [_input(checkpoint, card.input_channels, digests)],
        "outputs": [_output(checkpoint, digests)],
        **_training_data(card),
        "weights": _weights(checkpoint, digests),
        "config": {"spoco_zoo": _config(checkpoint, card, digests)},
    }
    return _yaml(content)


def _person(author: Author) -> Entry:
    return author.model_dump(exclude_none=True)


def _input(checkpoint: Checkpoint, channels: Sequence[str], digests: Digests) -> Entry:
    geometry = checkpoint.geometry
    space = [
        {"type": "space", "id": name, "size": {"min": axis.minimum, "step": axis.step}}
        for name, axis in zip(geometry.names, geometry.axes, strict=True)
    ]
    return {
        "id": INPUT,
        "description": "Raw image, unscaled",
        "axes": [*_batch_and_channel(channels), *space],
        "test_tensor": digests.of(TENSORS["test_input"]),
        "sample_tensor": digests.of(TENSORS["sample_input"]),
        "data": {"type": "float32"},
        "preprocessing": _preprocessing(checkpoint),
    }


def _output(checkpoint: Checkpoint, digests: Digests) -> Entry:
    geometry = checkpoint.geometry
    names = [f"embedding_{i}" for i in range(checkpoint.embedding_dim)]
    space = [
        {
            "type": "space",
            "id": name,
            "halo": axis.halo,
            "size": {"tensor_id": INPUT, "axis_id": name},
        }
        for name, axis in zip(geometry.names, geometry.axes, strict=True)
    ]
    return {
        "id": OUTPUT,
        "description": "Pixel embeddings to be clustered into instances; not probabilities",
        "axes": [*_batch_and_channel(names), *space],
        "test_tensor": digests.of(TENSORS["test_output"]),
        "sample_tensor": digests.of(TENSORS["sample_output"]),
        "data": {"type": "float32"},
    }


def _batch_and_channel(channel_names: Sequence[str]) -> list[Entry]:
    return [
        {"type": "batch", "id": "batch"},
        {"type": "channel", "id": "channel", "channel_names": list(channel_names)},
    ]


def _preprocessing(checkpoint: Checkpoint) -> list[Entry]:
    """One linear step; none when it would change nothing (the format refuses that)."""
    gain, offset = float(checkpoint.normalisation.gain), float(checkpoint.normalisation.offset)
    if (gain, offset) == (1.0, 0.0):
        return []
    return [{"id": "scale_linear", "kwargs": {"gain": gain, "offset": offset}}]


def _weights(checkpoint: Checkpoint, digests: Digests) -> Entry:
    torch_version = torch.__version__.split("+")[0]
    architecture = {
        **digests.of(f"{checkpoint.architecture}.py"),
        "callable": ARCHITECTURES[checkpoint.architecture],
        "kwargs": _plain(checkpoint.kwargs),
    }
    return {
        "pytorch_state_dict": {
            **digests.of(STATE_DICT),
            "architecture": architecture,
            "pytorch_version": torch_version,
        },
        "torchscript": {
            **digests.of(TORCHSCRIPT),
            "parent": "pytorch_state_dict",
            "pytorch_version": torch_version,
        },
        "onnx": {
            **digests.of(ONNX),
            "parent": "pytorch_state_dict",
            "opset_version": ONNX_OPSET,
        },
    }


def _training_data(card: Card) -> Entry:
    """A reference into the collection, or nothing: a data set described in place always warns."""
    dataset = card.training_data.bioimageio_id
    return {"training_data": {"id": dataset}} if dataset else {}


def _config(checkpoint: Checkpoint, card: Card, digests: Digests) -> Entry:
    """What our own `predict` needs, and where the model comes from."""
    geometry, clusterer = checkpoint.geometry, checkpoint.clusterer
    return {
        "version": CONFIG_VERSION,
        "axes": geometry.names,
        "voxel_size_um": _plain(checkpoint.voxel_size_um),
        "geometry": {
            "halo": list(geometry.halo),
            "step": list(geometry.step),
            "min": list(geometry.minimum),
            "period": list(geometry.period),
            "shrink": list(geometry.shrink),
        },
        "normalisation": {
            "gain": float(checkpoint.normalisation.gain),
            "offset": float(checkpoint.normalisation.offset),
        },
        "embedding": {"delta_v": checkpoint.delta_v, "delta_d": checkpoint.delta_d},
        "clusterer": {
            "name": clusterer.name,
            **digests.of(f"{clusterer.name}.py"),
            "callable": CLUSTERERS[clusterer.name],
            "settings": _plain(clusterer.settings),
        },
        "checkpoint_sha256": digests.checkpoint,
        "training_data": card.training_data.model_dump(exclude_none=True),
        "versions": {name: version(name) for name in ("spoco-zoo", "torch", "onnx", "onnxscript")},
        "provenance": _plain(checkpoint.provenance),
    }


def _plain(value: Any) -> Any:
    """Tuples, mappings and their like as the lists and dicts of JSON."""
    return json.loads(json.dumps(value, default=dict))


def _yaml(content: Entry) -> str:
    """YAML in the order given, block style, the same bytes every time."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100  # type: ignore[assignment]
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(content, text)
    return text.getvalue()
