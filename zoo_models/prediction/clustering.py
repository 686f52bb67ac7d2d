"""Which clusterer runs on embeddings, with which settings, and running it.

model's margins            delta_v, delta_d         |
model's own settings       where its method runs;   |  the later
                           of another method only   |  line counts
                           what all share (SHARED)  |
what the caller asks for   ClustererOptions         v
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ImageError, InputError
from zoo_models.postprocessing import CLUSTERERS, Clusterer, build_clusterer
from zoo_models.prediction.labels import read_labels

DEFAULT_METHOD = "basin_merging"

SHARED = ("background", "min_size")
"""Settings that every method takes, and that are about the images rather than the method."""

LARGE = 2**20
"""Pixels from which on loading compiled code, about a second, pays."""

COMPARES_TEACHER = ("consistency",)
"""Methods that take the embeddings of two networks, 2 D per pixel."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """What is known of embeddings from the model that made them; by default, without the model.

    delta_v, delta_d: margins of the pull and push terms that shaped it.
    clusterer: method and settings that make instances of them.
    dimensions: D, of the network alone, without its teacher; None: not known.
    axes: space axes, 'yx' or 'zyx'; None: not known.
    """

    delta_v: float = 0.5
    delta_d: float = 2.0
    clusterer: ClustererSettings = ClustererSettings(DEFAULT_METHOD)  # noqa: RUF009 (frozen)
    dimensions: int | None = None
    axes: str | None = None

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> EmbeddingSpace:
        return cls(
            checkpoint.delta_v,
            checkpoint.delta_d,
            checkpoint.clusterer,
            checkpoint.embedding_dim,
            checkpoint.axes,
        )


@dataclass(frozen=True)
class ClustererOptions:
    """What a caller wants of the clusterer; by default what the model has.

    method: a name in CLUSTERERS; None: the model's own.
    settings: 'KEY=VALUE' each, VALUE is JSON.
    min_size: smaller instances become 0, in pixels; None: the model's.
    """

    method: str | None = None
    settings: tuple[str, ...] = ()
    min_size: int | None = None

    def applied(self, space: EmbeddingSpace) -> EmbeddingSpace:
        """The same embeddings with the clusterer that is wanted, as in the drawing above.

        Raises:
            InputError: an unknown method, a setting that it does not take, or no such value.
        """
        own = space.clusterer
        name = self.method or own.name
        asked = self._asked_for(name)
        kept = {k: v for k, v in own.settings.items() if name == own.name or k in SHARED}
        margins = {"delta_v": space.delta_v, "delta_d": space.delta_d}
        return replace(space, clusterer=ClustererSettings(name, {**margins, **kept, **asked}))

    def _asked_for(self, name: str) -> dict[str, Any]:
        types = setting_types(name)
        asked: dict[str, Any] = {} if self.min_size is None else {"min_size": self.min_size}
        for text in self.settings:
            key, equals, value = text.partition("=")
            if not equals or key not in types:
                raise InputError(
                    f"--set {text}: found the setting {key!r}, expected KEY=VALUE with one that "
                    f"{name} takes: {', '.join(types)}."
                )
            if key in asked:
                raise InputError(f"--set {text}: {key} is given twice, expected once; leave one.")
            asked[key] = _value(text, value, types[key])
        return asked


AS_TRAINED = ClustererOptions()
"""The model's own method and settings."""


def setting_types(name: str) -> dict[str, Any]:
    """The settings of a method and their types.

    Raises:
        InputError: there is no such method.
    """
    if name not in CLUSTERERS:
        raise InputError(
            f"Unknown clusterer {name!r}: expected one of {', '.join(CLUSTERERS)}; name one of "
            "them with --method."
        )
    method = getattr(import_module(f"zoo_models.postprocessing.{name}"), CLUSTERERS[name])
    types = get_type_hints(method.__init__)
    return {key: types[key] for key in inspect.signature(method).parameters}


def instances(
    clusterer: Clusterer,
    embeddings: NDArray[np.float32],
    space: EmbeddingSpace,
    *,
    foreground: NDArray[np.bool_] | None = None,
    source: Path | str,
) -> NDArray[np.int32]:
    """Labels (z)yx int32, 1..n without gaps, 0 is background.

    Args:
        clusterer: the one that `space` names, built.
        embeddings: D(z)yx; with a teacher 2 D, the network's first. Methods that do not compare the
            two get the network's.
        space: where they come from.
        foreground: (z)yx; pixels where it is false become 0.
        source: their file or image, for messages.

    Raises:
        ImageError: embeddings that the method refuses, such as NaN.
        InputError: the method needs a teacher, and the embeddings have none.
    """
    name, dim = space.clusterer.name, space.dimensions
    if dim is not None and name not in COMPARES_TEACHER:
        embeddings = embeddings[:dim]
    elif dim is not None and len(embeddings) != 2 * dim:
        raise InputError(
            f"{source}: {len(embeddings)} embedding dimensions, expected {2 * dim} for {name}, "
            "which compares the network with its teacher; make the package with 'spoco-zoo export "
            "--teacher', or take another --method."
        )
    if embeddings[0].size >= LARGE:
        clusterer = build_clusterer(space.clusterer, compiled=True)
    try:
        return clusterer(embeddings, foreground)
    except ValueError as error:
        raise ImageError(f"{source}: {error}") from error


def read_foreground(path: Path, shape: Sequence[int]) -> NDArray[np.bool_]:
    """A foreground mask for labels of this shape: true where a label or mask image is above 0.

    Raises:
        ImageError: no such file, not labels (see read_labels), or another shape.
    """
    mask = read_labels(path) > 0
    if mask.ndim < len(shape) and shape[0] == 1:
        mask = mask[np.newaxis]  # image files drop an axis of length 1
    if mask.shape != tuple(shape):
        raise ImageError(
            f"{path}: is a mask of {mask.shape} pixels, expected {tuple(shape)} as the image; "
            "name the mask of this image"
        )
    return mask


def _value(text: str, value: str, type_: Any) -> Any:
    """A setting's value, parsed as JSON and of the setting's type."""
    try:
        parsed = json.loads(value, parse_constant=_refuse)
        if parsed is None:
            raise ValueError("null")
        return TypeAdapter(type_).validate_python(parsed, strict=True)
    except (ValueError, ValidationError) as error:
        raise InputError(
            f"--set {text}: found {value!r}, expected {_in_words(type_)}; write it as in JSON."
        ) from error


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN and Infinity are no JSON, but Python reads them


def _in_words(type_: Any) -> str:
    if type_ is bool:
        return "true or false"
    if type_ is int:
        return "a whole number"
    return "a number" if type_ in (float, float | None) else "a list of numbers such as [0.5, 1]"
