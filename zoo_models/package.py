"""A package of ours, read back for prediction: geometry, constants, network, clusterer.

No Python of the package is executed. The network runs from its TorchScript file; the clusterer is
the installed one, after its source was found to be the very file that the package carries.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from zoo_models.checkpoint import ClustererSettings, Normalisation, sha256
from zoo_models.errors import GeometryError, InputError, PackageError
from zoo_models.geometry import AxisTiling, TileGeometry
from zoo_models.package_config import PackageConfig
from zoo_models.postprocessing import CLUSTERERS, Clusterer, build_clusterer, clusterer_file
from zoo_models.prediction.clustering import AS_TRAINED, ClustererOptions, EmbeddingSpace
from zoo_models.prediction.engine import Network

RDF = "rdf.yaml"
"""The description inside a package."""

RDF_NAMES = (RDF, "bioimageio.yaml", "model.yaml")
"""Its name in packages of others (bioimage.io's own list)."""

TEACHER_CHANNEL = "teacher_"
"""Names of output channels that are not the network's begin so (see packager/kinds.py)."""

WeightFormat = Literal["torchscript", "onnx", "pytorch_state_dict"]
FORMS: dict[WeightFormat, str] = {
    "torchscript": "TorchScript",
    "onnx": "ONNX",
    "pytorch_state_dict": "PyTorch",
}
"""The forms in which a package may carry its network, and their names."""

OURS = "a package written by 'spoco-zoo export'"


@dataclass(frozen=True)
class Package:
    """What prediction needs of a package.

    Attributes:
        source: where it was read from.
        geometry: the declared tiling of the space axes.
        in_channels, embedding_dim: channels in and out.
        normalisation: constants applied to the raw image before the network.
        network: (1, C, [Z,] Y, X) -> (1, D, [Z,] Y, X) on `device`.
        space: what is known of the embeddings; with a teacher `embedding_dim` is twice its D.
        clusterer: embeddings -> instances, the one that `space` names.
    """

    source: Path
    geometry: TileGeometry
    in_channels: int
    embedding_dim: int
    normalisation: Normalisation
    network: Network
    space: EmbeddingSpace
    clusterer: Clusterer

    @classmethod
    def load(
        cls, source: Path, *, device: str = "cpu", options: ClustererOptions = AS_TRAINED
    ) -> Package:
        """Read a package zip, an unpacked folder, or its rdf.yaml; `options` change its clusterer.

        Raises:
            PackageError: missing, no bioimage.io model, not made by spoco-zoo, or its clusterer is
                to run and another version of it is installed.
            InputError: options that the clusterer does not take.
        """
        with opened(source) as content:
            description = description_of(source, content)
            config = config_of(source, description)
            space = _space(source, config, description, options)
            return cls(
                source=source,
                geometry=geometry_of(source, config),
                in_channels=_channels(description.inputs[0]),
                embedding_dim=_channels(description.outputs[0]),
                normalisation=Normalisation(config.normalisation.gain, config.normalisation.offset),
                space=space,
                clusterer=build_clusterer(space.clusterer),
                network=load_torchscript(
                    source, weight_bytes(source, content, description, "torchscript"), device
                ),
            )


def read_space(source: Path, options: ClustererOptions = AS_TRAINED) -> EmbeddingSpace:
    """What a package tells of its embeddings, without its network; `options` change its clusterer.

    Raises:
        PackageError, InputError: as Package.load.
    """
    with opened(source) as content:
        description = description_of(source, content)
    return _space(source, config_of(source, description), description, options)


@contextmanager
def opened(source: Path, *, expected: str = OURS) -> Iterator[zipfile.ZipFile | Path]:
    """The zip, closed afterwards (the library leaves one open that it opened), or the rdf.yaml.

    Raises:
        PackageError: missing, a folder without rdf.yaml, no zip file; it says what was `expected`.
    """
    if not source.exists():
        raise PackageError(f"{source}: no such file; expected {expected}.")
    if source.is_dir():
        found = [source / name for name in RDF_NAMES if (source / name).is_file()]
        if not found:
            raise PackageError(
                f"{source}: a folder without {RDF}; expected {expected}, zip or unpacked."
            )
        yield found[0]
    elif source.suffix in (".yaml", ".yml"):
        yield source
    else:
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError) as error:
            raise PackageError(
                f"{source}: not a complete zip file ({_first_line(error)}); expected {expected}."
            ) from error
        with archive:
            yield archive


def description_of(source: Path, content: zipfile.ZipFile | Path, *, expected: str = OURS) -> Any:
    """The model description in what `opened` gave; no other file of the package is read.

    Raises:
        PackageError: no bioimage.io description, not a valid one, not of a model.
    """
    import bioimageio.spec  # seconds: only when a package is read

    try:
        with bioimageio.spec.ValidationContext(perform_io_checks=False, log_warnings=False):
            description = bioimageio.spec.load_description(content)
    except Exception as error:  # the library raises many kinds for a file of another kind
        raise PackageError(
            f"{source}: not a bioimage.io package ({_first_line(error)}); expected {expected}."
        ) from error
    if isinstance(description, bioimageio.spec.InvalidDescr) or description.type != "model":
        raise PackageError(
            f"{source}: not a valid bioimage.io model description (type {description.type}); "
            f"expected {expected}: 'bioimageio validate-format' names the faults."
        )
    return description


def config_of(source: Path, description: Any) -> PackageConfig:
    """What `spoco-zoo export` wrote into a description; PackageError where it did not."""
    values = (getattr(description.config, "model_extra", None) or {}).get("spoco_zoo")
    if values is None:
        raise PackageError(
            f"{source}: has no config.spoco_zoo; 'predict' runs packages of 'spoco-zoo export', "
            "others run with 'bioimageio predict'."
        )
    try:
        config = PackageConfig.model_validate(values)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise PackageError(
            f"{source}: config.spoco_zoo cannot be used ({places}); export the package again with "
            "this version."
        ) from error
    if config.kind != "embeddings":
        raise PackageError(
            f"{source}: a package of kind {config.kind!r}; 'predict' runs kind 'embeddings': "
            "export the checkpoint without --kind, or run this one with 'bioimageio predict'."
        )
    return config


def geometry_of(source: Path, config: PackageConfig) -> TileGeometry:
    """The declared tiling; PackageError where it cannot be."""
    declared = config.geometry
    columns = (declared.min, declared.step, declared.period, declared.shrink, declared.halo)
    try:
        axes = [AxisTiling(*values) for values in zip(*columns, strict=True)]
        return TileGeometry(config.axes, tuple(axes))
    except (ValueError, GeometryError) as error:
        raise PackageError(f"{source}: its geometry is impossible: {error}") from error


def _channels(tensor: Any) -> int:
    return next(int(axis.size) for axis in tensor.axes if axis.type == "channel")


def weight_bytes(
    source: Path, content: zipfile.ZipFile | Path, description: Any, form: WeightFormat
) -> bytes:
    """One of the package's weight files, as its description tells.

    Raises:
        PackageError: there are no weights of this form, or the file has other bytes.
    """
    weights = getattr(description.weights, form)
    if weights is None:
        raise PackageError(f"{source}: has no {FORMS[form]} weights; export the package again.")
    try:
        data = read_bytes(content, str(weights.source))
        if hashlib.sha256(data).hexdigest() != weights.sha256:
            raise ValueError("other bytes than its description tells")
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unusable(source, form, error) from error
    return data


def load_torchscript(source: Path, data: bytes, device: str) -> torch.jit.ScriptModule:
    """The network in a TorchScript file's bytes, on `device`; PackageError where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(data), map_location=device)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise _unusable(source, "torchscript", error) from error
    return network


def _unusable(source: Path, form: WeightFormat, error: BaseException) -> PackageError:
    return PackageError(
        f"{source}: its {FORMS[form]} weights cannot be loaded ({_first_line(error)}); "
        "download or export the package again."
    )


def read_bytes(content: zipfile.ZipFile | Path, name: str) -> bytes:
    """One file of the package. The library's own reader would leave it open."""
    if isinstance(content, zipfile.ZipFile):
        return content.read(name)
    return (content.parent / name).read_bytes()


def _space(
    source: Path, config: PackageConfig, description: Any, options: ClustererOptions
) -> EmbeddingSpace:
    own = ClustererSettings(config.clusterer.name, dict(config.clusterer.settings))
    channel = next(axis for axis in description.outputs[0].axes if axis.type == "channel")
    space = EmbeddingSpace(
        delta_v=config.embedding.delta_v,
        delta_d=config.embedding.delta_d,
        clusterer=own,
        dimensions=sum(not str(name).startswith(TEACHER_CHANNEL) for name in channel.channel_names),
        axes=config.axes,
    )
    if options.method in (None, own.name):
        _expect_installed(source, config, own)
    return options.applied(space)


def _expect_installed(source: Path, config: PackageConfig, own: ClustererSettings) -> None:
    """The package's own method is to run: it must be the very file that was tested with it."""
    # the version first: another one may take other settings
    known = own.name in CLUSTERERS
    if known and (installed := sha256(clusterer_file(own.name))) != config.clusterer.sha256:
        raise PackageError(
            f"{source}: carries another version of clusterer {own.name} "
            f"(sha256 {config.clusterer.sha256[:12]}) than the installed one ({installed[:12]}); "
            "export the package again, install the spoco-zoo version that its "
            "config.spoco_zoo.versions names, or choose with --method."
        )
    try:
        build_clusterer(own)
    except InputError as error:
        raise PackageError(
            f"{source}: {str(error).rstrip('.')}; install the spoco-zoo version that its "
            "config.spoco_zoo.versions names."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
