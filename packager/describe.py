"""The package's description file: what a consumer must know to place tiles and run the network.

Written for the format version that all consumers read (bioimageio.core, ilastik, JDLL): 0.5.9, with
`documentation` and `covers` as plain strings. The library's own writer would raise the version and
turn both into mappings, which ilastik's and JDLL's readers refuse; so the file is written here, and
validated by the library afterwards.

One form of geometry places tiles right in every consumer:

    inputs[0].axes[y]    size {min, step}, or a fixed one the same range on all space axes
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
from typing import Any

import torch
from ruyaml import YAML

from packager.card import Author, Card
from packager.certificate import Certificate, as_config
from packager.consumers.placement import DeclaredAxis
from packager.kinds import Product, expect_title_fits
from packager.sample_tensors import TENSORS
from packager.weights import ONNX_OPSET, WEIGHTS, WeightFormat
from zoo_models.checkpoint import ARCHITECTURES, Checkpoint
from zoo_models.postprocessing import CLUSTERERS

FORMAT_VERSION = "0.5.9"
CONFIG_VERSION = 1
"""Version of the layout of `config.spoco_zoo`."""

RDF = "rdf.yaml"
README = "README.md"
COVER = "cover.png"
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


@dataclass(frozen=True)
class Subject:
    """All that a package's words are made of."""

    checkpoint: Checkpoint
    card: Card
    product: Product
    certificate: Certificate


def describe(subject: Subject, digests: Digests) -> str:
    """The text of rdf.yaml.

    All files that `digests` names lie beside it in the package. Sources: bioimage.io model
    description 0.5, and what its consumers were seen to do.
    """
    card, product = subject.card, subject.product
    content = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": expect_title_fits(card.title, product.kind),
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
        "attachments": [digests.of(f"{product.clusterer.name}.py")],
        "inputs": [_input(subject, digests)],
        "outputs": [_output(product, digests)],
        **_training_data(card),
        "weights": _weights(subject, digests),
        "config": {"spoco_zoo": _config(subject, digests)},
    }
    return _yaml(content)


def _person(author: Author) -> Entry:
    return author.model_dump(exclude_none=True)


def _input(subject: Subject, digests: Digests) -> Entry:
    product = subject.product
    space = [
        {"type": "space", "id": name, "size": _size(axis)}
        for name, axis in zip(product.names, product.axes, strict=True)
    ]
    return {
        "id": product.takes.id,
        "description": product.takes.description,
        "axes": [*_batch_and_channel(product.takes.channels), *space],
        "test_tensor": digests.of(TENSORS["test_input"]),
        "sample_tensor": digests.of(TENSORS["sample_input"]),
        "data": {"type": "float32"},
        "preprocessing": _preprocessing(subject.checkpoint) if product.takes_image else [],
    }


def _size(axis: DeclaredAxis) -> int | Entry:
    return {"min": axis.minimum, "step": axis.step} if axis.step else axis.minimum


def _output(product: Product, digests: Digests) -> Entry:
    space = [
        {
            "type": "space",
            "id": name,
            **({"halo": axis.halo} if axis.halo else {}),
            "size": {"tensor_id": product.takes.id, "axis_id": name},
        }
        for name, axis in zip(product.names, product.axes, strict=True)
    ]
    return {
        "id": product.gives.id,
        "description": product.gives.description,
        "axes": [*_batch_and_channel(product.gives.channels), *space],
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


def _weights(subject: Subject, digests: Digests) -> Entry:
    checkpoint, formats = subject.checkpoint, subject.product.formats
    torch_version = {"pytorch_version": torch.__version__.split("+")[0]}
    more: dict[WeightFormat, Entry] = {
        "pytorch_state_dict": dict(torch_version),
        "torchscript": dict(torch_version),
        "onnx": {"opset_version": ONNX_OPSET},
    }
    if "pytorch_state_dict" in formats:
        more["pytorch_state_dict"]["architecture"] = {
            **digests.of(f"{checkpoint.architecture}.py"),
            "callable": ARCHITECTURES[checkpoint.architecture],
            "kwargs": _plain(checkpoint.kwargs),
        }
    for form in formats[1:]:  # the zoo wants one original; the others come from it
        more[form]["parent"] = formats[0]
    return {form: {**digests.of(WEIGHTS[form]), **more[form]} for form in formats}


def _training_data(card: Card) -> Entry:
    """A reference into the collection, or nothing: a data set described in place always warns."""
    dataset = card.training_data.bioimageio_id
    return {"training_data": {"id": dataset}} if dataset else {}


def _config(subject: Subject, digests: Digests) -> Entry:
    """What our own `predict` needs, where the model comes from, and the certificate."""
    checkpoint = subject.checkpoint
    geometry, clusterer = checkpoint.geometry, subject.product.clusterer
    return {
        "version": CONFIG_VERSION,
        "kind": subject.product.kind,
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
        "tiling_certificate": as_config(subject.certificate),
        "checkpoint_sha256": digests.checkpoint,
        "training_data": subject.card.training_data.model_dump(exclude_none=True),
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
