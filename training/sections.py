"""The sections of a training configuration, one class each; config.py puts them together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.layouts import LAYOUTS


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Split = Literal["train", "val", "test"]


class VolumesSection(Section):
    """Images of one split and their labels, by path; see training/layouts/volumes.py."""

    images: tuple[str, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_for_one(self) -> VolumesSection:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"{len(self.images)} images and {len(self.labels)} labels given, expected one "
                "label path for each image path"
            )
        return self


class DataSection(Section):
    """Images to learn from. `layout` says how they lie in `folder`; see docs/data.md.

    `volumes` names the paths of each split of the layout "volumes", relative to `folder`. `crop`
    keeps, per split and axis, the pixels from a start to a stop of every image. `planes` takes
    every plane of a stack for an image of its own, to train a 2D network on sections.
    """

    folder: str
    layout: Literal[
        "folders",
        "volumes",
        "cvppp",
        "cityscapes",
        "ovules",
        "stem",
        "vnc",
        "mitoem",
        "bbbc006",
        "dsb2018",
        "nuclei3d",
    ] = "folders"
    axes: Literal["yx", "zyx"] = "yx"
    planes: bool = False
    voxel_size_um: tuple[float, ...] | None = None
    gain: float = 1.0
    offset: float = 0.0
    # Excluded from records, which never tell where files lay.
    volumes: dict[Split, VolumesSection] = Field({}, exclude=True)
    crop: dict[Split, dict[str, tuple[int, int]]] = {}

    @model_validator(mode="after")
    def _layout_fits(self) -> DataSection:
        if (self.layout == "volumes") != bool(self.volumes):
            raise ValueError(
                f"the layout is {self.layout!r} and {len(self.volumes)} splits are named in "
                'data.volumes, expected paths there with layout = "volumes" and only with it'
            )
        if self.planes and self.axes != "yx":
            raise ValueError(f'axes is {self.axes!r} with planes = true: set axes = "yx"')
        axes = LAYOUTS[self.layout].axes if self.layout in LAYOUTS else None
        if axes not in (None, self.file_axes):
            raise ValueError(
                f"axes is {self.axes!r}, but images of the layout {self.layout!r} have the axes "
                f'{axes!r}: set axes = "{axes}"{", or planes = true" if axes == "zyx" else ""}'
            )
        for split, limits in self.crop.items():
            for axis, (start, stop) in limits.items():
                if axis not in self.file_axes or not 0 <= start < stop:
                    raise ValueError(
                        f"crop.{split}.{axis} is [{start}, {stop}], expected an axis of "
                        f"{self.file_axes!r} and 0 <= start < stop"
                    )
        return self

    @property
    def file_axes(self) -> str:
        """The axes that the files have."""
        return "zyx" if self.planes else self.axes


ONLY_VALID = frozenset({"convolutions", "upsampling", "local_radius", "local_floor"})
"""Arguments that `unet_same` does not have: it is built as its authors built it."""


class NetworkSection(Section):
    """Arguments of the architecture; see its file in zoo_models/architectures.

    `unet_same` is there for comparison with published networks: its tiles need a wider halo than
    those of `unet_valid`, and with norm "group", which only it takes, no tiles agree.
    """

    architecture: Literal["unet_valid", "unet_same"] = "unet_valid"
    in_channels: int = 1
    embedding_dim: int = 16
    width: int = 32
    max_width: int = 256
    levels: int = 3
    factor: int | list[int] = 2
    kernel: int | list[int] = 3
    convolutions: int = 2
    upsampling: Literal["learnt", "nearest"] = "learnt"
    norm: Literal["none", "batch", "group"] = "batch"
    local_radius: int | list[int] = 0
    local_floor: tuple[float, float] = (0.1, 0.004)

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> NetworkSection:
        foreign = ", ".join(sorted(ONLY_VALID & self.model_fields_set))
        if self.architecture == "unet_same" and foreign:
            raise ValueError(f"unet_same has no {foreign}: leave out, or take unet_valid")
        if self.architecture == "unet_valid" and self.norm == "group":
            raise ValueError(
                'norm is "group", which sees the whole tile, and unet_valid is there to be tiled: '
                'set norm to "batch" or "none"'
            )
        return self

    @property
    def kwargs(self) -> dict[str, object]:
        """The arguments that the architecture takes, as JSON values."""
        foreign = ONLY_VALID if self.architecture == "unet_same" else frozenset()
        return self.model_dump(exclude={"architecture", *foreign}, mode="json")


class LossSection(Section):
    """`spoco` is L_SO of Wolny et al. 2022; `discriminative` leaves the object term out.

    `phase` is the weight of a term for images whose size is off the period's grid; it costs the
    network the means to tell apart objects that look alike (losses/phase_consistency.py).

    `unlabeled_push` counts under [supervision] only, `consistency` under [supervision] or with a
    [teacher]; with a `pseudo_background` the first never, the second with a [teacher] only.
    `adversarial` begins after `adversarial_warmup` steps, with its critic.

    `ignore = 0`: label 0 is of unknown pixels, which take part in no term but the phase's, and not
    the background, an instance otherwise. Not with sparse supervision: there it says unlabeled.

    `rim` is the weight of a term for the background beside the instances, which keeps objects from
    coming out too thick (losses/rim.py); not with sparse supervision nor `ignore`, which have no
    background.
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
    ignore: Literal[0] | None = None
    phase: float = Field(0.0, ge=0)
    object_loss: Literal["dice", "bce"] = "dice"
    unlabeled_push: float = Field(1.0, ge=0)
    consistency: float = Field(1.0, ge=0)
    adversarial: float = Field(0.0, ge=0)
    rim: float = Field(0.0, ge=0)
    adversarial_warmup: int = Field(50_000, ge=0)


class SupervisionSection(Section):
    """Sparse supervision: some of the instances, drawn over the whole training split; the rest and
    the background are unlabeled. `fraction` of them or a number, `instances`; a fraction of 1 is
    for label images that hold only some of the objects to begin with.

    `dense` spends the same budget the usual way: whole images, drawn until the instances are used
    up, with their background; no other image is trained on.

    `pseudo_background` takes as labeled background what the model of [transfer] sees no object in,
    but for `gap` pixels around objects without a label. The rest is then unknown and in no term of
    the loss, in place of unlabeled (pseudo_background.py).
    """

    fraction: float | None = Field(None, gt=0, le=1)
    instances: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    dense: bool = False
    pseudo_background: bool = False
    gap: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _check_together(self) -> SupervisionSection:
        if (self.fraction is None) == (self.instances is None):
            given = "both fraction and" if self.instances else "neither fraction nor"
            raise ValueError(f"{given} instances given, expected exactly one of the two")
        if self.pseudo_background and self.dense:
            raise ValueError(
                "pseudo_background is given with dense, whose images have their background "
                "labeled: leave one of the two out"
            )
        return self


class TransferSection(Section):
    """Start from the weights of `init` with the learning rate optimiser.lr * lr_factor: a tenth in
    Wolny et al. `init` is a checkpoint, looked up beside the configuration, or a catalog model."""

    init: str
    lr_factor: float = Field(0.1, gt=0)


class TeacherSection(Section):
    """The network that the consistency compares with; see training/teacher.py.

    `keep` puts its weights into the checkpoint, which doubles the file: `export --teacher` wants
    them, for consistency clustering.
    """

    kind: Literal["momentum", "shared", "dropout", "trained"] = "momentum"
    momentum: float = Field(0.999, ge=0, lt=1)
    keep: bool = False

    @model_validator(mode="after")
    def _has_something_to_keep(self) -> TeacherSection:
        if self.keep and self.kind not in ("momentum", "trained"):
            raise ValueError(
                f'keep is true and kind is "{self.kind}", a teacher without weights of its own: '
                'leave keep out, or take "momentum" or "trained"'
            )
        return self


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
    compiler and takes a minute to start. Measure whether it pays: benchmarks/training.py.
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
    """Method in zoo_models/postprocessing and its settings, for validation and for the package.

    `tried`: setting -> values among which `spoco-zoo tune` chooses, on the val split.
    `spread`: it measures the background's spread, too, and a `radius` is in standard deviations.
        Left out: both are tried where the background is unlabeled, so not pulled to one place.
    """

    name: str = "basin_merging"
    settings: dict[str, float | int | bool | list[float]] = {}
    tried: dict[str, list[int | float]] = {}
    spread: bool | None = None

    @model_validator(mode="after")
    def _takes_one_networks_embeddings(self) -> ClustererSection:
        if self.name == "consistency":
            raise ValueError(
                'name is "consistency", which compares with the teacher, and validation runs one '
                "network: choose another here; 'spoco-zoo export --teacher' takes this one"
            )
        return self
