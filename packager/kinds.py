"""What one checkpoint becomes: four kinds of package, each with its own graph and declaration.

| kind       | takes      | gives                   | tiles exactly in                        |
| ---------- | ---------- | ----------------------- | --------------------------------------- |
| embeddings | raw image  | D embeddings per pixel  | core, ilastik, JDLL, on the grid        |
| boundaries | raw image  | foreground and boundary | core, ilastik, JDLL, on the grid        |
| instances  | raw image  | labels                  | nothing: one pass, images of any size   |
| clusterer  | embeddings | labels                  | nothing: one pass, images of any size   |

Embeddings on request come with those of the teacher, stacked: 2 D per pixel, which consistency
clustering compares.

Labels cannot be tiled: an instance that two tiles share would get two numbers. The graphs of the
last two pad inside themselves and declare min 1, step 1, no halo, so that core's whole mode and
JDLL's default (one tile up to 50 million pixels) give them every image in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from packager.consumers.placement import DeclaredAxis
from packager.graphs.beside_teacher import beside_teacher
from packager.graphs.boundaries import boundaries_graph
from packager.graphs.instances import clusterer_graph, instances_graph
from packager.weights import WeightFormat
from zoo_models.checkpoint import Checkpoint, ClustererSettings
from zoo_models.errors import ExportError, InputError
from zoo_models.geometry import TileGeometry
from zoo_models.package import TEACHER_CHANNEL
from zoo_models.prediction.clustering import ClustererOptions, EmbeddingSpace

KindName = Literal["embeddings", "instances", "clusterer", "boundaries"]
KINDS: tuple[KindName, ...] = get_args(KindName)

Target = Literal["ilastik", "fiji", "core"]
SERVED_BEST: dict[Target, KindName] = {
    "ilastik": "boundaries",  # what its Multicut workflow takes
    "fiji": "instances",  # labels with one click
    "core": "embeddings",
}

FIXED_TILE = {2: 1024, 3: 160}
"""Largest edge of the fixed input size that makes JDLL tile; by number of space axes."""

IMAGE, EMBEDDINGS = "input", "embeddings"


@dataclass(frozen=True)
class Wanted:
    """Which of a checkpoint's packages to make; the arguments of `product`."""

    kind: KindName | None = None
    target: Target | None = None
    teacher: bool = False


@dataclass(frozen=True)
class TensorPlan:
    """One tensor as the description names it; `channels` are the names of its channels."""

    id: str
    description: str
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """One package to be made.

    Attributes:
        kind: see the table above.
        graph: what the weight files hold; (B, channels, [Z,] Y, X) in and out, float32.
        takes, gives: its two tensors.
        axes: the declared space axes, (z)yx.
        grid: per axis, image sizes that tile exactly are multiples of it (JDLL, core); 1: one pass.
        formats: weight files to write; a state dict needs its network's source beside it, which
            graphs composed here do not have.
        clusterer: what makes instances of the embeddings.
        scripted: the graph has loops, so it is scripted, not traced.
        takes_image: the tensor it takes is the raw image, to be normalised first.
        with_teacher: of the channels it gives the second half is the teacher's.
    """

    kind: KindName
    graph: torch.nn.Module
    takes: TensorPlan
    gives: TensorPlan
    axes: tuple[DeclaredAxis, ...]
    grid: tuple[int, ...]
    formats: tuple[WeightFormat, ...]
    clusterer: ClustererSettings
    scripted: bool = False
    takes_image: bool = True
    with_teacher: bool = False

    @property
    def one_pass(self) -> bool:
        """Not to be tiled."""
        return self.scripted

    @property
    def names(self) -> str:
        return "zyx"[-len(self.axes) :]


def product(
    checkpoint: Checkpoint,
    image_channels: tuple[str, ...],
    *,
    kind: KindName | None = None,
    target: Target | None = None,
    teacher: bool = False,
) -> Product:
    """The package of `kind` made for `target`; without a kind the one that serves it best.

    With `teacher` it gives the teacher's embeddings, too.

    JDLL never tiles a declaration with a step, and hangs above 50 million pixels, so for "fiji" the
    kinds that can be tiled get a fixed input size.

    Raises:
        ExportError: the checkpoint lacks what the kind needs, or the teacher.
        InputError: a teacher for another kind than embeddings.
    """
    kind = kind or (SERVED_BEST[target] if target else "embeddings")
    if teacher:
        _expect_teacher(checkpoint, kind)
    image = TensorPlan(IMAGE, "Raw image, unscaled", image_channels)
    made = _MAKERS[kind](checkpoint, image)
    if teacher:
        made = _beside_teacher(checkpoint, made)
    if target == "fiji" and not made.one_pass:
        made = replace(made, axes=tuple(_fixed(axis, len(made.axes)) for axis in made.axes))
    return made


def _fixed(axis: DeclaredAxis, ndim: int) -> DeclaredAxis:
    most = max(0, FIXED_TILE[ndim] - axis.minimum)
    return replace(axis, minimum=axis.minimum + most // axis.step * axis.step, step=0)


def _embeddings(checkpoint: Checkpoint, image: TensorPlan) -> Product:
    return Product(
        "embeddings",
        checkpoint.network(),
        image,
        _embedding_tensor(checkpoint),
        axes=_declared(checkpoint.geometry),
        grid=checkpoint.geometry.period,
        formats=("pytorch_state_dict", "torchscript", "onnx"),
        clusterer=checkpoint.clusterer,
    )


def _expect_teacher(checkpoint: Checkpoint, kind: KindName) -> None:
    if kind != "embeddings":
        raise InputError(
            f"Found kind {kind!r} with a teacher, expected embeddings: the teacher is there for "
            "clustering afterwards; add --kind embeddings, or leave --teacher out."
        )
    if checkpoint.teacher is None:
        raise ExportError(
            "The checkpoint holds no teacher: train with keep = true in [teacher] of the "
            "configuration, or run 'spoco-zoo tune' with it on a run that had a teacher of its own "
            "(kind momentum or trained)."
        )


def _beside_teacher(checkpoint: Checkpoint, made: Product) -> Product:
    """Embeddings of both. The state dict goes: no one source file rebuilds two networks."""
    dim = checkpoint.embedding_dim
    return replace(
        made,
        graph=beside_teacher(checkpoint),
        gives=replace(
            made.gives,
            description="Pixel embeddings of the network, then those of its teacher, to be "
            "clustered into instances where both agree; not probabilities",
            channels=made.gives.channels + tuple(f"{TEACHER_CHANNEL}{i}" for i in range(dim)),
        ),
        formats=("torchscript", "onnx"),
        clusterer=_consistency(checkpoint),
        with_teacher=True,
    )


def _consistency(checkpoint: Checkpoint) -> ClustererSettings:
    """At the margins of training; with what the checkpoint knows of instances and background."""
    wanted = ClustererOptions(method="consistency")
    return wanted.applied(EmbeddingSpace.of_checkpoint(checkpoint)).clusterer


def _boundaries(checkpoint: Checkpoint, image: TensorPlan) -> Product:
    graph, geometry = boundaries_graph(checkpoint)
    maps = TensorPlan(
        "boundaries", "Foreground and boundary, both 0 to 1", ("foreground", "boundary")
    )
    return Product(
        "boundaries",
        graph,
        image,
        maps,
        axes=_declared(geometry),
        grid=geometry.period,
        formats=("torchscript", "onnx"),
        clusterer=checkpoint.clusterer,
    )


LABELS = TensorPlan("labels", "Instances 1, 2, ... and 0 for the background", ("label",))


def _instances(checkpoint: Checkpoint, image: TensorPlan) -> Product:
    return _in_one_pass("instances", instances_graph(checkpoint), image, checkpoint)


def _clusterer(checkpoint: Checkpoint, image: TensorPlan) -> Product:
    takes = _embedding_tensor(checkpoint)
    made = _in_one_pass("clusterer", clusterer_graph(checkpoint), takes, checkpoint)
    return replace(made, takes_image=False)


def _in_one_pass(
    kind: KindName, graph: torch.nn.Module, takes: TensorPlan, checkpoint: Checkpoint
) -> Product:
    ndim = checkpoint.geometry.ndim
    any_size = (DeclaredAxis(minimum=1, step=1),) * ndim
    return Product(
        kind,
        graph,
        takes,
        LABELS,
        any_size,
        grid=(1,) * ndim,
        formats=("torchscript",),
        clusterer=checkpoint.clusterer,
        scripted=True,
    )


def _embedding_tensor(checkpoint: Checkpoint) -> TensorPlan:
    names = tuple(f"embedding_{i}" for i in range(checkpoint.embedding_dim))
    return TensorPlan(
        EMBEDDINGS, "Pixel embeddings to be clustered into instances; not probabilities", names
    )


def _declared(geometry: TileGeometry) -> tuple[DeclaredAxis, ...]:
    return tuple(DeclaredAxis(a.minimum, a.step, a.halo) for a in geometry.axes)


_MAKERS = {
    "embeddings": _embeddings,
    "boundaries": _boundaries,
    "instances": _instances,
    "clusterer": _clusterer,
}


def expect_title_fits(title: str, kind: KindName) -> str:
    """The title of the package of `kind`: the zoo takes at most 64 characters.

    Raises:
        InputError: it is longer.
    """
    full = title if kind == "embeddings" else f"{title} - {kind}"
    if len(full) > 64:
        raise InputError(
            f"The title {full!r} has {len(full)} characters, the zoo takes 64; shorten the card's."
        )
    return full
