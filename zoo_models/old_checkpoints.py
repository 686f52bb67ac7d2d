"""Checkpoints of SPOCO's authors (kreshuklab/spoco) as checkpoints of ours, with a declared halo.

Their file holds a state dict and nothing about its network, but the shapes of the tensors tell most
of it: what is inferred and what has to be told (`Told`) is in the table.

| of the network            | from                                                                |
| ------------------------- | ------------------------------------------------------------------- |
| space axes, channels      | shape of the first convolution's weights                            |
| embedding dimensions      | shape of the last one's                                             |
| feature maps, poolings    | the encoders' second convolutions                                   |
| norm                      | a module named batchnorm or groupnorm, or none                      |
| the rest                  | fixed in their code: kernel 3, pooling by 2, ReLU, nearest, groups  |
| margins, constants        | told: they are in no tensor                                         |

A name of theirs and where it goes::

    module.net_f.encoders.2.basic_module.SingleConv1.conv.weight  ->  encoder.2.1.weight
    '-----------' '--------'              '---------' '--'
    wrapper, f     block 2                0: norm, 1: convolution, 2: ReLU; 3, 4, 5 of the second

The activation is in no tensor either: layer orders with another one than ReLU ('bcl', 'gce') look
the same as 'bcr' and 'gcr', and would give other numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo_models.checkpoint import (
    Checkpoint,
    ClustererSettings,
    Normalisation,
    build_network,
    sha256,
)
from zoo_models.errors import CheckpointError

MODEL_KEY = "model_state_dict"
"""Where their checkpoint holds the tensors, beside epoch, iterations and the optimiser's state."""

NETWORKS = (("net_f.", "net_g."), ("unet_q.", "unet_k."))
"""Prefixes of f, which is taken, and of g, its mean, which is left; by version of their code."""

NORMS = {"batchnorm": "batch", "groupnorm": "group"}
FIRST, LAST = "encoders.0.basic_module.SingleConv1.conv.weight", "final_conv.weight"
MAPS = "encoders.{}.basic_module.SingleConv2.conv.weight"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Told:
    """What is in no tensor.

    normalisation: network input = pixel * gain + offset. Their data sets standardise every image
        by its own mean and deviation, which no constant can repeat: give those of typical images.
    delta_v, delta_d: margins it was trained with; their defaults.
    """

    normalisation: Normalisation
    delta_v: float = 0.5
    delta_d: float = 2.0


def import_checkpoint(path: Path, told: Told) -> Checkpoint:
    """Read a .pytorch file of theirs; no code in it is run.

    Raises:
        CheckpointError: not such a file, or its tensors are not those of the published network; the
            missing, the unknown and those of another shape are listed.
    """
    tensors = _network_f(_read(path))
    kwargs = _arguments(path, tensors)
    weights = _renamed(path, tensors, kwargs)
    return Checkpoint(
        architecture="unet_same",
        kwargs=kwargs,
        weights=weights,
        delta_v=told.delta_v,
        delta_d=told.delta_d,
        normalisation=told.normalisation,
        axes="yx" if kwargs["ndim"] == 2 else "zyx",
        voxel_size_um=None,
        clusterer=ClustererSettings("basin_merging"),
        provenance={"imported": {"file": path.name, "sha256": sha256(path)}},
    )


def _read(path: Path) -> Tensors:
    """The state dict, with the names that the file has."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint of kreshuklab/spoco.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file of another kind
        told = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: holds no plain tensors that torch can read ({type(error).__name__}: {told}); "
            "expected a checkpoint of kreshuklab/spoco."
        ) from error
    tensors = content.get(MODEL_KEY, content) if isinstance(content, Mapping) else content
    if not isinstance(tensors, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in tensors.values()
    ):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise CheckpointError(
            f"{path}: found {found}, expected tensors or a {MODEL_KEY!r} of them; use the file "
            "that kreshuklab/spoco wrote."
        )
    return dict(tensors)


def _network_f(tensors: Tensors) -> Tensors:
    """The tensors of f without the prefixes of wrappers; unknown names stay, to be told."""
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    for f, g in NETWORKS:
        if any(name.startswith(f) for name in tensors):
            return {
                name.removeprefix(f): tensor
                for name, tensor in tensors.items()
                if not name.startswith(g)
            }
    return tensors


def _arguments(path: Path, tensors: Tensors) -> dict[str, Any]:
    """Arguments of `unet_same`, inferred from the shapes of the tensors."""
    names = (MAPS.format(level) for level in itertools.count())
    second = [tensors[name] for name in itertools.takewhile(tensors.__contains__, names)]
    if FIRST not in tensors or LAST not in tensors or not second:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise CheckpointError(
            f"{path}: found {some}, expected {FIRST}, {LAST} and their like; only U-Nets of double "
            "convolutions as kreshuklab/spoco makes them can be imported."
        )
    maps = [len(weights) for weights in second]
    doubled = [min(maps[0] * 2**level, max(maps)) for level in range(len(maps))]
    if maps != doubled:
        raise CheckpointError(
            f"{path}: found {maps} feature maps, expected each to be twice the one before, up to a "
            f"largest; unet_same can be built with {doubled}."
        )
    found = {kind for name, kind in NORMS.items() for key in tensors if f".{name}." in key}
    if len(found) > 1:
        raise CheckpointError(f"{path}: found batch and group norms, expected one kind or none.")
    return {
        "ndim": tensors[FIRST].ndim - 2,
        "in_channels": tensors[FIRST].shape[1],
        "embedding_dim": len(tensors[LAST]),
        "width": maps[0],
        "max_width": max(maps),
        "levels": len(maps) - 1,
        "factor": 2,
        "kernel": 3,
        "norm": found.pop() if found else "none",
    }


def _renamed(path: Path, tensors: Tensors, kwargs: Mapping[str, Any]) -> Tensors:
    """The tensors under our names, after every name and shape was found to be right."""
    ours = build_network("unet_same", kwargs).state_dict()
    names = {_their_name(name, kwargs): name for name in ours}
    faults = {
        "missing": [theirs for theirs in names if theirs not in tensors],
        "unknown": [theirs for theirs in tensors if theirs not in names],
        "of another shape": list(_misfits(tensors, {t: ours[o] for t, o in names.items()})),
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(each)}" for kind, each in faults.items() if each)
        raise CheckpointError(
            f"{path}: its tensors are not those of {dict(kwargs)}, layers in the order norm, "
            f"convolution, ReLU. {listed}. Only the published networks can be imported."
        )
    return {ours_: tensors[theirs].to(ours[ours_].dtype) for theirs, ours_ in names.items()}


def _misfits(tensors: Tensors, expected: Tensors) -> Iterator[str]:
    for name, tensor in tensors.items():
        if name in expected and tensor.shape != expected[name].shape:
            shape = "x".join(map(str, expected[name].shape))
            yield f"{name} {'x'.join(map(str, tensor.shape))} (expected {shape})"


def _their_name(ours: str, kwargs: Mapping[str, Any]) -> str:
    """encoder.2.1.weight -> encoders.2.basic_module.SingleConv1.conv.weight; see the figure."""
    if ours.startswith("head."):
        return ours.replace("head", "final_conv")
    path, block, layer, last = ours.split(".")
    number, kind = divmod(int(layer), 3)
    module = "conv" if kind == 1 else f"{kwargs['norm']}norm"
    return f"{path}s.{block}.basic_module.SingleConv{number + 1}.{module}.{last}"
