"""The networks in a package, in each of the forms that it carries, and pixels to try them on.

| form               | becomes                                                             |
| ------------------ | ------------------------------------------------------------------- |
| torchscript        | a graph that torch runs without any Python of the package           |
| onnx               | the same graph for other runtimes                                   |
| pytorch_state_dict | the installed network class with these tensors, after its source    |
|                    | was found to be the very file that the package carries              |
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_models.checkpoint import ARCHITECTURES, Normalisation, build_network, sha256
from zoo_models.errors import InputError, PackageError
from zoo_models.geometry import TileGeometry
from zoo_models.package import (
    WeightFormat,
    config_of,
    description_of,
    geometry_of,
    load_torchscript,
    opened,
    read_bytes,
    weight_bytes,
)


@dataclass(frozen=True)
class PackageWeights:
    """A package whose weights are read when they are asked for.

    geometry: the declared tiling. description: as bioimageio.spec reads it.
    """

    source: Path
    geometry: TileGeometry
    normalisation: Normalisation
    description: Any

    @classmethod
    def of_package(cls, source: Path) -> Self:
        """Read a package zip, an unpacked folder, or its rdf.yaml; no weights yet.

        Raises:
            PackageError: missing, no bioimage.io model, or not made by spoco-zoo.
        """
        with opened(source) as content:
            description = description_of(source, content)
        config = config_of(source, description)
        constants = Normalisation(config.normalisation.gain, config.normalisation.offset)
        return cls(source, geometry_of(source, config), constants, description)

    def read(self, form: WeightFormat) -> bytes:
        """A weight file's bytes; PackageError where there is none, or others than described."""
        with opened(self.source) as content:
            return weight_bytes(self.source, content, self.description, form)

    def torchscript(self, device: str) -> torch.jit.ScriptModule:
        """The traced network; PackageError where it cannot be loaded."""
        return load_torchscript(self.source, self.read("torchscript"), device)

    def network(self, device: str) -> torch.nn.Module:
        """The installed class with the package's tensors, in evaluation mode.

        Raises:
            PackageError: the tensors cannot be used.
            InputError: the package carries no tensors, or another source than the installed one.
        """
        data = self.read("pytorch_state_dict")
        network = build_network(*self._architecture())
        try:
            tensors = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
            network.load_state_dict(tensors)
        except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise PackageError(
                f"{self.source}: its PyTorch weights cannot be loaded "
                f"({str(error).splitlines()[0]}); download or export the package again."
            ) from error
        return network.to(device).eval()

    def _architecture(self) -> tuple[str, dict[str, Any]]:
        """Name of the installed architecture that the package carries, and its arguments."""
        declared = self.description.weights.pytorch_state_dict.architecture
        name = Path(str(getattr(declared, "source", ""))).stem
        if name in ARCHITECTURES:
            module = import_module(f"zoo_models.architectures.{name}")
            if sha256(Path(str(module.__file__))) == declared.sha256:
                return name, dict(declared.kwargs)
        raise InputError(
            f"{self.source}: carries another network source than the installed ones "
            f"({', '.join(ARCHITECTURES)}), and Python of a package is not run; take an engine "
            "other than compile, or export the package again."
        )

    def example(self) -> NDArray[np.float32]:
        """The package's own test input c(z)yx, normalised: what the network is made for.

        Raises:
            PackageError: it is missing or no array.
        """
        tensor = self.description.inputs[0].test_tensor
        try:
            with opened(self.source) as content:
                array = np.load(io.BytesIO(read_bytes(content, str(tensor.source))))
        except (AttributeError, KeyError, OSError, ValueError) as error:
            raise PackageError(
                f"{self.source}: its test input cannot be read ({str(error).splitlines()[0]}); "
                "download or export the package again."
            ) from error
        return self.normalisation.apply(array[0].astype(np.float32))
