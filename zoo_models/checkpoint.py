"""One file that rebuilds a trained network, its geometry and its settings, without training code.

A checkpoint is a safetensors file: the weights as tensors (those of a teacher that was kept under
`teacher.` and the same names), everything else as JSON in its header under the key `spoco_zoo`. No
pickle is ever read, so opening a stranger's checkpoint runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from zoo_models.errors import CheckpointError, OutputExistsError
from zoo_models.geometry import NetworkAxis, TileGeometry, ValidUNetAxis
from zoo_models.same_padding import SamePaddedUNetAxis

FORMAT = 1
HEADER_KEY = "spoco_zoo"
TEACHER = "teacher."
ARCHITECTURES = {"unet_valid": "SameSizeUNet", "unet_same": "UNetSame"}
"""Module in `zoo_models.architectures` -> the class in it whose output has the input's size."""


@dataclass(frozen=True)
class Normalisation:
    """Fixed constants: network input = image * gain + offset, the same for every tile."""

    gain: float = 1.0
    offset: float = 0.0

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's input for an image of raw values, any shape: float32, as `scale_linear`."""
        return image * np.float32(self.gain) + np.float32(self.offset)


@dataclass(frozen=True)
class ClustererSettings:
    """Which file of `zoo_models.postprocessing` turns embeddings into instances, and how."""

    name: str
    settings: Mapping[str, float | int | bool | list[float]] = field(default_factory=dict)


class SameSizeNetwork(Protocol):
    """What is known of a shipped network: it may have been imported under another module name."""

    halo: list[int]

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and all that is needed to run, tile and describe it.

    Attributes:
        architecture: file in `zoo_models.architectures`, e.g. "unet_valid".
        kwargs: its constructor's arguments; JSON values.
        weights: state dict of the same-size network, tensors on the CPU.
        delta_v, delta_d: margins of the pull and push terms the network was trained with.
        normalisation: fixed constants applied to the image before the network.
        axes: space axes, "yx" or "zyx".
        voxel_size_um: micrometres per pixel of the training images, one per axis, or None when the
            images had none.
        clusterer: method and settings chosen on the validation split.
        provenance: data, splits, seed, versions, metrics; JSON values.
        teacher: the weights of the teacher that the network was compared with, under the names of
            `weights`; None where training had none, or did not keep it.
    """

    architecture: str
    kwargs: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    delta_v: float
    delta_d: float
    normalisation: Normalisation
    axes: str
    voxel_size_um: tuple[float, ...] | None
    clusterer: ClustererSettings
    provenance: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, torch.Tensor] | None = None

    @property
    def geometry(self) -> TileGeometry:
        """The universal tiling declaration of this network."""
        return TileGeometry.from_network(network_axes(self.architecture, self.kwargs))

    @property
    def embedding_dim(self) -> int:
        return int(self.kwargs["embedding_dim"])

    @property
    def in_channels(self) -> int:
        return int(self.kwargs["in_channels"])

    @property
    def sees_whole_tiles(self) -> bool:
        """A group norm: no halo makes its tiles agree."""
        return self.kwargs.get("norm") == "group"

    def network(self) -> torch.nn.Module:
        """The same-size network in eval mode: (B, C, [Z,] Y, X) -> (B, D, [Z,] Y, X) float32."""
        return self._with(self.weights)

    def teacher_network(self) -> torch.nn.Module:
        """The teacher, in eval mode: same input, output and geometry as `network`.

        Raises:
            CheckpointError: it was not kept.
        """
        if self.teacher is None:
            raise CheckpointError(
                "The checkpoint holds no teacher: set keep = true in [teacher] of the "
                "configuration, then 'spoco-zoo train' writes one that does, and 'spoco-zoo tune' "
                "makes one of a run that is over."
            )
        return self._with(self.teacher)

    def _with(self, weights: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        network = build_network(self.architecture, self.kwargs)
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise CheckpointError(
                f"The weights do not fit {self.architecture} with {dict(self.kwargs)}: "
                f"{str(error).splitlines()[-1].strip()} Use the checkpoint that training wrote."
            ) from error
        return network.eval()

    def with_provenance(self, **more: Any) -> Checkpoint:
        return replace(self, provenance={**self.provenance, **more})

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write to a temporary name beside `path`, then rename.

        Raises:
            OutputExistsError: `path` exists and `overwrite` is false.
            CheckpointError: no file can be written there; none is left half-written.
        """
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists already: choose another name or overwrite.")
        header = {"format": FORMAT, **_header(self)}
        partial = path.with_name(path.name + ".part")
        # the format refuses tensors that share memory, as two networks' may
        teacher = {TEACHER + k: v.clone() for k, v in (self.teacher or {}).items()}
        tensors = {**self.weights, **teacher}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, {HEADER_KEY: json.dumps(header, sort_keys=True)})
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            raise CheckpointError(
                f"{path}: cannot be written ({error}); choose a writable folder with room."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: missing, unreadable, of another kind, or of a newer format.
        """
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise CheckpointError(
                f"{path}: {found}; expected a checkpoint written by 'spoco-zoo train'."
            )
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(HEADER_KEY)
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: not a complete safetensors file ({error}); expected a checkpoint "
                "written by 'spoco-zoo train' (a .ckpt or .pt file of another program cannot be "
                "read)."
            ) from error
        if text is None:
            raise CheckpointError(
                f"{path}: a safetensors file without the '{HEADER_KEY}' header; expected a "
                "checkpoint written by 'spoco-zoo train'."
            )
        try:
            return cls._from_header(path, json.loads(text), tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its '{HEADER_KEY}' header is damaged ({type(error).__name__}: {error}); "
                "use the file as 'spoco-zoo train' wrote it."
            ) from error

    @classmethod
    def _from_header(
        cls, path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]
    ) -> Checkpoint:
        found = header.pop("format", None)
        if found != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {found}, this version reads format {FORMAT}; update "
                "spoco-zoo."
            )
        teacher = {k.removeprefix(TEACHER): v for k, v in tensors.items() if k.startswith(TEACHER)}
        return cls(
            **{
                **header,
                "weights": {k: v for k, v in tensors.items() if not k.startswith(TEACHER)},
                "teacher": teacher or None,
                "normalisation": Normalisation(**header["normalisation"]),
                "clusterer": ClustererSettings(**header["clusterer"]),
                "voxel_size_um": tuple(header["voxel_size_um"] or ()) or None,
            }
        )


def build_network(architecture: str, kwargs: Mapping[str, Any]) -> torch.nn.Module:
    """A new same-size network with random weights.

    Raises:
        CheckpointError: unknown architecture, or arguments that it refuses.
    """
    _expect_known(architecture)
    module = import_module(f"zoo_models.architectures.{architecture}")
    try:
        network = getattr(module, ARCHITECTURES[architecture])(**kwargs)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{architecture} cannot be built: {error}.") from error
    assert isinstance(network, torch.nn.Module)
    return network


def answering_part(network: torch.nn.Module) -> torch.nn.Module:
    """The network inside its same-size wrapper, where it has one: what answers, and is trained."""
    inner = getattr(network, "valid", network)
    assert isinstance(inner, torch.nn.Module)
    return inner


def network_axes(architecture: str, kwargs: Mapping[str, Any]) -> tuple[NetworkAxis, ...]:
    """The size arithmetic of a network with these arguments, one entry per space axis.

    Raises:
        CheckpointError: unknown architecture.
    """
    _expect_known(architecture)
    if architecture == "unet_valid":
        return valid_unet_axes(kwargs)
    return tuple(
        SamePaddedUNetAxis(kernel, kwargs["levels"], factor)
        for kernel, factor in zip(
            _per_axis(kwargs, "kernel"), _per_axis(kwargs, "factor"), strict=True
        )
    )


def valid_unet_axes(kwargs: Mapping[str, Any]) -> tuple[ValidUNetAxis, ...]:
    """The size arithmetic of `unet_valid` with these arguments, one entry per space axis."""
    each = [_per_axis(kwargs, name) for name in ("kernel", "factor", "local_radius")]
    return tuple(
        ValidUNetAxis(kernel, kwargs["convolutions"], kwargs["levels"], factor, radius)
        for kernel, factor, radius in zip(*each, strict=True)
    )


def _expect_known(architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"Unknown architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}."
        )


def _per_axis(kwargs: Mapping[str, Any], name: str) -> list[int]:
    value = kwargs[name]
    return [value] * int(kwargs["ndim"]) if isinstance(value, int) else [int(v) for v in value]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _header(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that is no tensor, as JSON values."""
    values = asdict(replace(checkpoint, weights={}, teacher=None))
    return {name: value for name, value in values.items() if name not in ("weights", "teacher")}
