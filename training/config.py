"""A training run as a TOML file: every value has a name, a default and a check."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.losses.combined import EmbeddingLoss
from training.losses.phase_consistency import reach
from zoo_models.checkpoint import ClustererSettings, Normalisation, valid_unet_axes
from zoo_models.errors import ConfigError, GeometryError
from zoo_models.geometry import ValidUNetAxis


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(Section):
    """Images to learn from: a folder with images/, labels/ and splits.json."""

    folder: str
    axes: Literal["yx", "zyx"] = "yx"
    voxel_size_um: tuple[float, ...] | None = None
    gain: float = 1.0
    offset: float = 0.0


class NetworkSection(Section):
    """Arguments of the architecture; see zoo_models/architectures/unet_valid.py."""

    architecture: Literal["unet_valid"] = "unet_valid"
    in_channels: int = 1
    embedding_dim: int = 16
    width: int = 32
    max_width: int = 256
    levels: int = 3
    factor: int | list[int] = 2
    kernel: int | list[int] = 3
    convolutions: int = 2
    upsampling: Literal["learnt", "nearest"] = "learnt"
    norm: Literal["none", "batch"] = "batch"
    local_radius: int | list[int] = 0
    local_floor: tuple[float, float] = (0.1, 0.004)


class LossSection(Section):
    """`spoco` is L_SO of Wolny et al. 2022; `discriminative` leaves the object term out.

    `phase` is the weight of a term for images whose size is off the period's grid; it costs the
    network the means to tell apart objects that look alike (losses/phase_consistency.py).
    """

    kind: Literal["spoco", "discriminative"] = "spoco"
    delta_v: float = Field(0.5, ge=0)
    delta_d: float = Field(2.0, gt=0)
    pull: float = 1.0
    push: float = 1.0
    object: float = 1.0
    regulariser: float = 0.001
    t: float = Field(0.9, gt=0, lt=1)
    anchor: Literal["random", "mean"] = "random"
    neighbourhood: int | None = Field(None, ge=0)
    phase: float = Field(0.0, ge=0)


class PatchSection(Section):
    """Training crops; `output` is the width of the network's answer, per axis or for all."""

    output: int | list[int]
    batch: int = Field(4, ge=1)


class AugmentationSection(Section):
    """Probabilities and ranges; 0 switches a part off. Rotation is about the z axis in 3D."""

    flip: bool = True
    rotate: bool = True
    affine: float = 0.5
    scale: float = 0.3
    elastic: float = 0.2
    gain: tuple[float, float] = (0.5, 2.0)
    offset: float = 0.02
    gamma: tuple[float, float] = (0.7, 1.5)
    noise: float = 0.005
    blur: float = 1.5


class OptimiserSection(Section):
    """Adam; `plateau` divides the rate by 5 (Wolny et al.), `cosine` follows the planned steps."""

    lr: float = 2e-4
    weight_decay: float = 1e-5
    schedule: Literal["plateau", "cosine"] = "plateau"
    patience: int = 10


class RunSection(Section):
    """Length, checks and arithmetic. An epoch is `epoch_steps` optimiser steps.

    `compile` runs the network of the training steps through torch.compile: on a CPU it needs a C++
    compiler, takes a minute to start, then steps take about three quarters of the time.
    """

    max_steps: int
    epoch_steps: int = 250
    validation_images: int = 0
    early_stop: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    workers: int = 1
    devices: int | Literal["auto"] = "auto"


class ClustererSection(Section):
    """Method in zoo_models/postprocessing and its settings, for validation and for the package."""

    name: str = "basin_merging"
    settings: dict[str, float | int | bool | list[float]] = {}


class TrainingConfig(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = 0
    data: DataSection
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    patch: PatchSection
    augmentation: AugmentationSection = AugmentationSection()
    optimiser: OptimiserSection = OptimiserSection()
    run: RunSection
    clusterer: ClustererSection = ClustererSection()

    @property
    def ndim(self) -> int:
        return len(self.data.axes)

    @property
    def network_kwargs(self) -> dict[str, Any]:
        return {"ndim": self.ndim, **self.network.model_dump(exclude={"architecture"}, mode="json")}

    @property
    def network_axes(self) -> tuple[ValidUNetAxis, ...]:
        return valid_unet_axes(self.network_kwargs)

    @property
    def output_shape(self) -> tuple[int, ...]:
        output = self.patch.output
        return (output,) * self.ndim if isinstance(output, int) else tuple(output)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the valid network reads to answer for `output_shape`."""
        pairs = zip(self.output_shape, self.network_axes, strict=True)
        return tuple(width + 2 * axis.shrink for width, axis in pairs)

    @property
    def period(self) -> tuple[int, ...]:
        return tuple(axis.period for axis in self.network_axes)

    @property
    def patch_reach(self) -> tuple[int, ...]:
        """Pixels by which a patch is wider than `input_shape`, for the shifts of the phase term."""
        return reach(self.period) if self.loss.phase else (0,) * self.ndim

    @property
    def embedding_loss(self) -> EmbeddingLoss:
        loss = self.loss
        return EmbeddingLoss(
            delta_v=loss.delta_v,
            delta_d=loss.delta_d,
            pull_weight=loss.pull,
            push_weight=loss.push,
            object_weight=loss.object if loss.kind == "spoco" else 0.0,
            regulariser_weight=loss.regulariser,
            t=loss.t,
            anchor=loss.anchor,
            neighbourhood=loss.neighbourhood,
        )

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(self.data.gain, self.data.offset)

    @property
    def clusterer_settings(self) -> ClustererSettings:
        return ClustererSettings(self.clusterer.name, self.clusterer.settings)

    @model_validator(mode="after")
    def _check_together(self) -> TrainingConfig:
        if len(self.output_shape) != self.ndim:
            raise ValueError(
                f"patch.output has {len(self.output_shape)} values, expected 1 or {self.ndim}"
            )
        if self.run.max_steps % self.run.epoch_steps:
            raise ValueError(
                f"run.max_steps {self.run.max_steps} is no multiple of run.epoch_steps "
                f"{self.run.epoch_steps}: the last steps would never be validated"
            )
        if self.loss.phase and math.prod(self.period) == 1:
            raise ValueError(
                f"loss.phase is {self.loss.phase}, but the network has the period 1 along every "
                "axis and commutes with all shifts already: leave loss.phase out"
            )
        for axis, width, network in zip(
            self.data.axes, self.output_shape, self.network_axes, strict=True
        ):
            _check_window(axis, width, network)
        return self


def _check_window(axis: str, width: int, network: ValidUNetAxis) -> None:
    """Refuse a window that trains less than all of the network's output functions."""
    if width <= network.period:
        raise ValueError(
            f"patch.output {width} along {axis} is not larger than the period {network.period}: "
            "with a smaller window some of the network's output functions are never trained, with "
            "an equal one neighbouring periods are never compared and jump at the grid "
            f"(Rumberger et al. 2021); use at least {_next_output(network, network.period + 1)}"
        )
    if not network.is_valid_input(width + 2 * network.shrink):
        near = _next_output(network, width)
        raise ValueError(
            f"patch.output {width} along {axis} is no output size of this network; "
            f"use {near - network.period} or {near}"
        )


def _next_output(network: ValidUNetAxis, width: int) -> int:
    first = network.smallest_input - 2 * network.shrink
    return first + max(0, -(-(width - first) // network.period)) * network.period


def load_config(path: Path, *, data: Path | None = None) -> TrainingConfig:
    """Read and check a configuration; `data` replaces its data.folder.

    A relative data.folder is looked up beside the configuration file.

    Raises:
        ConfigError: missing file, broken TOML, or values that cannot work; all of them at once.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected a training configuration in TOML.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        section = values.get("data")
        if isinstance(section, dict) and (data or isinstance(section.get("folder"), str)):
            section["folder"] = str(data or (path.parent / section["folder"]).resolve())
        return TrainingConfig.model_validate(values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error}).") from error
    except (ValidationError, GeometryError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def _one_line(error: ValidationError | GeometryError) -> str:
    if isinstance(error, GeometryError):
        return str(error)
    parts = []
    for problem in error.errors():
        place = ".".join(str(p) for p in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{place}: {text}" if place else text)
    return "; ".join(parts) + "."
