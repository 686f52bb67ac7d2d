"""A package of ours, read back for prediction: geometry, constants, network, clusterer.

No Python of the package is executed. The network runs from its TorchScript file; the clusterer is
the installed one, after its source was found to be the very file that the package carries.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from zoo_models.checkpoint import ClustererSettings, Normalisation, sha256
from zoo_models.errors import GeometryError, PackageError
from zoo_models.geometry import AxisTiling, TileGeometry
from zoo_models.postprocessing import Clusterer, build_clusterer, clusterer_file
from zoo_models.prediction.engine import Network


@dataclass(frozen=True)
class Package:
    """What prediction needs of a package.

    Attributes:
        source: where it was read from.
        geometry: the declared tiling of the space axes.
        in_channels, embedding_dim: channels in and out.
        normalisation: constants applied to the raw image before the network.
        network: (1, C, [Z,] Y, X) -> (1, D, [Z,] Y, X) on `device`.
        clusterer: embeddings -> instances.
    """

    source: Path
    geometry: TileGeometry
    in_channels: int
    embedding_dim: int
    normalisation: Normalisation
    network: Network
    clusterer: Clusterer

    @classmethod
    def load(cls, source: Path, *, device: str = "cpu") -> Package:
        """Read a package zip, an unpacked folder, or its rdf.yaml.

        Raises:
            PackageError: missing, no bioimage.io model, not made by spoco-zoo, or it carries
                another version of its clusterer than the installed one.
        """
        description = _description(source)
        config = _config(source, description)
        return cls(
            source=source,
            geometry=_geometry(source, config),
            in_channels=_channels(description.inputs[0]),
            embedding_dim=_channels(description.outputs[0]),
            normalisation=Normalisation(config.normalisation.gain, config.normalisation.offset),
            network=_torchscript(source, description, device),
            clusterer=_clusterer(source, config),
        )


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Geometry(_Section):
    halo: list[int]
    step: list[int]
    min: list[int]
    period: list[int]
    shrink: list[int]


class _Normalisation(_Section):
    gain: float
    offset: float


class _Clusterer(_Section):
    name: str
    sha256: str
    settings: dict[str, float | int | bool | list[float]]


class _Config(_Section):
    """`config.spoco_zoo` of the description, as far as prediction reads it."""

    version: Literal[1]
    axes: Literal["yx", "zyx"]
    geometry: _Geometry
    normalisation: _Normalisation
    clusterer: _Clusterer


def _description(source: Path) -> Any:
    import bioimageio.spec  # seconds: only when a package is read

    if not source.exists():
        raise PackageError(
            f"{source}: no such file; expected a package written by 'spoco-zoo export'."
        )
    if source.is_dir():
        source = source / "rdf.yaml"
    try:
        with bioimageio.spec.ValidationContext(perform_io_checks=False, log_warnings=False):
            description = bioimageio.spec.load_description(source)
    except Exception as error:  # the library raises many kinds for a file of another kind
        raise PackageError(
            f"{source}: not a bioimage.io package ({_first_line(error)}); expected one written by "
            "'spoco-zoo export'."
        ) from error
    if getattr(description, "type", None) != "model" or not hasattr(description, "weights"):
        raise PackageError(
            f"{source}: not a valid bioimage.io model description "
            f"({description.validation_summary.status}); run 'bioimageio test' on it for details."
        )
    return description


def _config(source: Path, description: Any) -> _Config:
    values = (getattr(description.config, "model_extra", None) or {}).get("spoco_zoo")
    if values is None:
        raise PackageError(
            f"{source}: has no config.spoco_zoo; 'predict' runs packages of 'spoco-zoo export', "
            "others run with 'bioimageio predict'."
        )
    try:
        return _Config.model_validate(values)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise PackageError(
            f"{source}: config.spoco_zoo cannot be used ({places}); export the package again with "
            "this version."
        ) from error


def _geometry(source: Path, config: _Config) -> TileGeometry:
    declared = config.geometry
    columns = (declared.min, declared.step, declared.period, declared.shrink, declared.halo)
    try:
        axes = [AxisTiling(*values) for values in zip(*columns, strict=True)]
        return TileGeometry(config.axes, tuple(axes))
    except (ValueError, GeometryError) as error:
        raise PackageError(f"{source}: its geometry is impossible: {error}") from error


def _channels(tensor: Any) -> int:
    return next(int(axis.size) for axis in tensor.axes if axis.type == "channel")


def _torchscript(source: Path, description: Any, device: str) -> Network:
    if description.weights.torchscript is None:
        raise PackageError(f"{source}: has no TorchScript weights; export the package again.")
    try:
        content = description.weights.torchscript.get_reader().read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network: Network = torch.jit.load(io.BytesIO(content), map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise PackageError(
            f"{source}: its TorchScript weights cannot be loaded ({_first_line(error)}); "
            "download or export the package again."
        ) from error
    return network


def _clusterer(source: Path, config: _Config) -> Clusterer:
    clusterer = build_clusterer(
        ClustererSettings(config.clusterer.name, dict(config.clusterer.settings))
    )
    installed = sha256(clusterer_file(config.clusterer.name))
    if installed != config.clusterer.sha256:
        raise PackageError(
            f"{source}: carries another version of clusterer {config.clusterer.name} "
            f"(sha256 {config.clusterer.sha256[:12]}) than the installed one ({installed[:12]}); "
            "export the package again, or install the spoco-zoo version that its "
            "config.spoco_zoo.versions names."
        )
    return clusterer


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
