"""A training run as a TOML file: every value has a name, a default and a check."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from training.losses.combined import EmbeddingLoss
from training.losses.phase_consistency import reach
from training.sections import (
    AugmentationSection,
    ClustererSection,
    DataSection,
    LossSection,
    NetworkSection,
    OptimiserSection,
    PatchSection,
    RunSection,
    Section,
    SupervisionSection,
    TeacherSection,
    TransferSection,
)
from zoo_models.catalog import list_models
from zoo_models.checkpoint import ClustererSettings, Normalisation, network_axes
from zoo_models.errors import ConfigError, GeometryError
from zoo_models.geometry import NetworkAxis


class TrainingConfig(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = 0
    data: DataSection
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    transfer: TransferSection | None = None
    supervision: SupervisionSection | None = None
    teacher: TeacherSection | None = None
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
        return {"ndim": self.ndim, **self.network.kwargs}

    @property
    def network_axes(self) -> tuple[NetworkAxis, ...]:
        return network_axes(self.network.architecture, self.network_kwargs)

    @property
    def output_shape(self) -> tuple[int, ...]:
        output = self.patch.output
        return (output,) * self.ndim if isinstance(output, int) else tuple(output)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the network reads to answer for `output_shape`: the same, if it pads by itself."""
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
    def with_teacher(self) -> bool:
        """Whether two views of every patch are compared: the consistency term."""
        asked = self.sparse or self.teacher is not None
        return asked and self.loss.consistency > 0

    @property
    def keeps_teacher(self) -> bool:
        """Whether the checkpoint holds the teacher, too."""
        return self.teacher is not None and self.teacher.keep

    @property
    def sparse(self) -> bool:
        """Whether label 0 says "unlabeled" in training, and not "background" or "unknown"."""
        given = self.supervision
        return given is not None and not given.dense and not given.pseudo_background

    @property
    def pseudo_background(self) -> bool:
        """Whether a model's background stands for the missing labels of it; see sections.py."""
        return self.supervision is not None and self.supervision.pseudo_background

    @property
    def spreads_tried(self) -> tuple[bool, ...]:
        """Whether tuning measures the spread of the background, too, and not its place alone."""
        if self.clusterer.spread is not None:
            return (self.clusterer.spread,)
        has_spread = self.clusterer.name == "basin_merging"
        return (False, True) if self.sparse and has_spread else (False,)

    @property
    def embedding_loss(self) -> EmbeddingLoss:
        """What is trained; under sparse supervision label 0 is unlabeled, or unknown."""
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
            object_loss=loss.object_loss,
            unlabeled=0 if self.sparse else None,
            ignore=0 if self.pseudo_background else loss.ignore,
            unlabeled_push_weight=loss.unlabeled_push,
            consistency_weight=loss.consistency,
            rim_weight=loss.rim,
        )

    @property
    def validation_loss(self) -> EmbeddingLoss:
        """The training loss as under full supervision, without a teacher: val has all labels."""
        return dataclasses.replace(self.embedding_loss, unlabeled=None, ignore=self.loss.ignore)

    @property
    def learning_rate(self) -> float:
        """Of the first step: lower where the run starts from trained weights."""
        factor = 1.0 if self.transfer is None else self.transfer.lr_factor
        return self.optimiser.lr * factor

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation(self.data.gain, self.data.offset)

    @property
    def clusterer_settings(self) -> ClustererSettings:
        """The margins of the loss, from which the method derives what is not set."""
        margins = {"delta_v": self.loss.delta_v, "delta_d": self.loss.delta_d}
        return ClustererSettings(self.clusterer.name, {**margins, **self.clusterer.settings})

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
        if self.loss.phase and self.network.architecture == "unet_same":
            raise ValueError(
                f"loss.phase is {self.loss.phase}, but windows of unet_same differ by their "
                "padding, not by their phase alone: leave loss.phase out, or take unet_valid"
            )
        if self.loss.phase and math.prod(self.period) == 1:
            raise ValueError(
                f"loss.phase is {self.loss.phase}, but the network has the period 1 along every "
                "axis and commutes with all shifts already: leave loss.phase out"
            )
        self._check_sparse_terms()
        for axis, width, network in zip(
            self.data.axes, self.output_shape, self.network_axes, strict=True
        ):
            _check_window(axis, width, network)
        return self

    def _check_sparse_terms(self) -> None:
        loss = self.loss
        sparse = self.sparse or self.pseudo_background
        if loss.ignore is not None and (sparse or loss.adversarial):
            other = "sparse supervision" if sparse else "loss.adversarial"
            raise ValueError(
                f"loss.ignore is given with {other}, for which label 0 is a part of the patch: "
                "leave one of the two out"
            )
        if loss.rim and (sparse or loss.ignore is not None):
            other = "sparse supervision" if sparse else "loss.ignore"
            raise ValueError(
                f"loss.rim is {loss.rim} with {other}, under which no pixel is known to be "
                "background: leave one of the two out"
            )
        if loss.adversarial and self.pseudo_background:
            raise ValueError(
                "loss.adversarial is given with supervision.pseudo_background, but its masks would "
                "hold the unknown pixels: leave one of the two out"
            )
        if self.teacher is not None and not loss.consistency:
            raise ValueError(
                "a [teacher] is given, but loss.consistency is 0 and nothing is compared with it: "
                "leave [teacher] out, or raise the weight"
            )
        if loss.delta_v == 0 and (self.with_teacher or loss.adversarial):
            raise ValueError(
                "loss.delta_v is 0, but the soft masks of the consistency and the adversarial term "
                "have this width: use a larger one, or weights of 0"
            )
        if loss.adversarial and loss.adversarial_warmup >= self.run.max_steps:
            raise ValueError(
                f"loss.adversarial begins after {loss.adversarial_warmup} steps, but run.max_steps "
                f"is {self.run.max_steps}: lower loss.adversarial_warmup or leave the term out"
            )


def _check_window(axis: str, width: int, network: NetworkAxis) -> None:
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


def _next_output(network: NetworkAxis, width: int) -> int:
    first = network.smallest_input - 2 * network.shrink
    return first + max(0, -(-(width - first) // network.period)) * network.period


def load_config(
    path: Path, *, data: Path | None = None, init: Path | None = None
) -> TrainingConfig:
    """Read and check a configuration; `data` replaces its data.folder, `init` its transfer.init.

    Relative paths in the file are looked up beside it; a transfer.init that is not there may be
    the name of a catalog model. `init` for a file without [transfer] keeps
    the file's learning rate: it was chosen for this run.

    Raises:
        ConfigError: missing file, broken TOML, or values that cannot work; all of them at once.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected a training configuration in TOML.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if init is not None:
            values.setdefault("transfer", {"lr_factor": 1.0})
        init = init or _ready_model(values.get("transfer"), beside=path.parent)
        for section, key, given in (("data", "folder", data), ("transfer", "init", init)):
            _set_path(values.get(section), key, given, beside=path.parent)
        return TrainingConfig.model_validate(values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error}).") from error
    except (ValidationError, GeometryError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


def _ready_model(transfer: Any, *, beside: Path) -> Path | None:
    """The checkpoint of the catalog model that transfer.init names, where no file has that name."""
    name = transfer.get("init") if isinstance(transfer, dict) else None
    if not isinstance(name, str) or (beside / name).exists():
        return None
    return next((model.checkpoint for model in list_models() if model.name == name), None)


def _set_path(section: Any, key: str, given: Path | None, *, beside: Path) -> None:
    """Put in what was given from outside, or make the file's own path independent of where we are.

    What is no section or no path stays as it is, to be refused with all other mistakes.
    """
    if isinstance(section, dict) and (given or isinstance(section.get(key), str)):
        section[key] = str(given or (beside / section[key]).resolve())


def _one_line(error: ValidationError | GeometryError) -> str:
    if isinstance(error, GeometryError):
        return str(error)
    parts = []
    for problem in error.errors():
        place = ".".join(str(p) for p in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{place}: {text}" if place else text)
    return "; ".join(parts) + "."
