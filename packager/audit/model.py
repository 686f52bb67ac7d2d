"""A model description of anybody, any format, as plain frozen values.

Format 0.4 is read through bioimageio.spec's own conversion to 0.5. Nothing remote is read, no file
but the description is opened here, and no Python of the package is executed.

Axes of a tensor are batch, channel, space and others (time, index); they may stand in any order.
Everything else in the audit sees c(z)yx: space axes in the input's order, and all axes that are
neither batch nor space folded into one channel axis.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.consumers.placement import DeclaredAxis
from zoo_models.errors import PackageError
from zoo_models.package import opened

EXPECTED = "a bioimage.io model: a .zip, an unpacked folder or its rdf.yaml"

Content = zipfile.ZipFile | Path
"""Where the files of a package are: an open zip, or its description in a folder."""


FORMS = (
    "torchscript",
    "onnx",
    "pytorch_state_dict",
    "keras_hdf5",
    "keras_v3",
    "tensorflow_saved_model_bundle",
    "tensorflow_js",
)


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor as declared.

    Attributes:
        id, kind: kind is "batch", "channel", "space", "time" or "index".
        minimum, step: sizes are minimum + n * step; step 0: exactly minimum.
        reference: (tensor, axis) that the size follows, with `scale` and `offset`; or None.
        halo: pixels to crop per side.
    """

    id: str
    kind: str
    minimum: int
    step: int = 0
    reference: tuple[str, str] | None = None
    scale: float = 1.0
    offset: int = 0
    halo: int = 0

    @property
    def declared(self) -> DeclaredAxis:
        """As the consumers read it; sizes are those of the input that it follows."""
        return DeclaredAxis(self.minimum, self.step, self.halo, self.scale, self.offset)


@dataclass(frozen=True)
class Tensor:
    """One input or output. `processing`: ids of its pre- or post-processing steps.

    `reduced`: per step that takes statistics the axes that it reduces; None: all.
    """

    id: str
    axes: tuple[Axis, ...]
    processing: tuple[str, ...]
    reduced: tuple[tuple[str, tuple[str, ...] | None], ...] = ()

    @property
    def space(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.axes if a.kind == "space")

    @property
    def folded(self) -> tuple[Axis, ...]:
        """Axes that become the channel axis of c(z)yx."""
        return tuple(a for a in self.axes if a.kind not in ("batch", "space"))

    @property
    def channels(self) -> int:
        return math.prod(a.minimum for a in self.folded)


@dataclass(frozen=True)
class Weights:
    """One weight file. `opset`: of ONNX."""

    form: str
    source: str
    sha256: str | None
    opset: int | None = None


@dataclass(frozen=True)
class Model:
    """A description, read.

    Attributes:
        source, name: where from, and what it calls itself.
        format_version: as written in the file.
        inputs, outputs, weights: in the order of the description.
        mappings: keys among documentation and covers that are mappings instead of plain text.
        deepimagej: `config.deepimagej` forbids tiling.
        description: bioimageio.spec's own object, format 0.5, for its and core's functions.
    """

    source: Path
    name: str
    format_version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: tuple[Weights, ...]
    mappings: tuple[str, ...]
    deepimagej: bool
    description: Any

    @property
    def image(self) -> Tensor:
        """The first input with space axes: the one that is probed and tiled.

        Raises:
            PackageError: there is none with two or three.
        """
        for tensor in self.inputs:
            if len(tensor.space) in (2, 3):
                return tensor
        raise PackageError(
            f"{self.source}: no input with 2 or 3 space axes, expected an image; there is nothing "
            "to tile."
        )


@contextmanager
def read_model(source: Path) -> Iterator[tuple[Model, Content]]:
    """A package's description, and its files while the context is open.

    Raises:
        PackageError: missing, not a package, not a valid description, not of a model.
    """
    with opened(source, expected=EXPECTED) as content:
        yield _model(source, content), content


def read_bytes(content: Content, name: str) -> bytes:
    """One file of the package.

    Raises:
        KeyError, OSError: it is not there.
    """
    if isinstance(content, zipfile.ZipFile):
        return content.read(name)
    return (content.parent / name).read_bytes()


def description_name(source: Path, content: Content) -> str:
    """Name of the description file inside the package."""
    if isinstance(content, Path):
        return content.name
    from bioimageio.spec._internal.io import identify_bioimageio_yaml_file_name

    try:
        return str(identify_bioimageio_yaml_file_name(content.namelist()))
    except ValueError as error:
        raise PackageError(f"{source}: no rdf.yaml inside; expected {EXPECTED}.") from error


def _model(source: Path, content: Content) -> Model:
    import bioimageio.spec
    from ruyaml import YAML

    try:
        text = read_bytes(content, description_name(source, content)).decode()
        written = YAML(typ="safe", pure=True).load(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # conversion from 0.4 talks about what it changed
            with bioimageio.spec.ValidationContext(perform_io_checks=False, log_warnings=False):
                description: Any = bioimageio.spec.load_model_description(
                    content, format_version="latest"
                )
    except PackageError:
        raise
    except Exception as error:  # the libraries raise many kinds for a file of another kind
        line = " ".join(str(error).split())[:300]
        raise PackageError(
            f"{source}: not a bioimage.io model that can be read ({line}); 'bioimageio "
            "validate-format' names all faults."
        ) from error
    inputs = tuple(_tensor(t, description.inputs) for t in description.inputs)
    deepimagej = (written.get("config") or {}).get("deepimagej")
    return Model(
        source=source,
        name=str(description.name),
        format_version=str(written.get("format_version")),
        inputs=inputs,
        outputs=tuple(_tensor(t, description.inputs) for t in description.outputs),
        weights=_weights(description.weights),
        mappings=_mappings(written),
        deepimagej=isinstance(deepimagej, dict) and deepimagej.get("allow_tiling") is not True,
        description=description,
    )


def _mappings(written: dict[str, Any]) -> tuple[str, ...]:
    covers = written.get("covers") or []
    found = {
        "documentation": isinstance(written.get("documentation"), dict),
        "covers": any(isinstance(cover, dict) for cover in covers),
    }
    return tuple(key for key, is_mapping in found.items() if is_mapping)


def _weights(entries: Any) -> tuple[Weights, ...]:
    found = [(form, getattr(entries, form, None)) for form in FORMS]
    return tuple(
        Weights(
            form,
            str(entry.source),
            None if entry.sha256 is None else str(entry.sha256),
            getattr(entry, "opset_version", None),
        )
        for form, entry in found
        if entry is not None
    )


def _tensor(tensor: Any, inputs: Any) -> Tensor:
    steps = getattr(tensor, "preprocessing", None) or getattr(tensor, "postprocessing", None) or []
    reduced = []
    for step in steps:
        kwargs: Any = getattr(step, "kwargs", None)
        if hasattr(kwargs, "axes"):
            axes = kwargs.axes
            reduced.append((str(step.id), None if axes is None else tuple(map(str, axes))))
    return Tensor(
        id=str(tensor.id),
        axes=tuple(_axis(axis, inputs) for axis in tensor.axes),
        processing=tuple(str(step.id) for step in steps),
        reduced=tuple(reduced),
    )


def _axis(axis: Any, inputs: Any) -> Axis:
    """A size reference is resolved to the range of the axis that it names."""
    kind, name, size = str(axis.type), str(axis.id), axis.size
    if kind == "batch":
        return Axis(name, kind, 1)
    halo = int(getattr(axis, "halo", 0) or 0)
    if isinstance(size, int):
        return Axis(name, kind, size, halo=halo)
    if not hasattr(size, "axis_id"):
        return Axis(name, kind, int(size.min), int(getattr(size, "step", 0)), halo=halo)
    reference = (str(size.tensor_id), str(size.axis_id))
    target = next(
        a for t in inputs if str(t.id) == reference[0] for a in t.axes if str(a.id) == reference[1]
    )
    minimum, step = (
        (target.size, 0) if isinstance(target.size, int) else (target.size.min, target.size.step)
    )
    scale = float(target.scale) / float(axis.scale)
    return Axis(name, kind, int(minimum), int(step), reference, scale, int(size.offset), halo)
