"""Transfer: a run that starts from the weights of another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from training.sections import TransferSection
from zoo_models.checkpoint import Checkpoint, sha256
from zoo_models.errors import CheckpointError


@dataclass(frozen=True)
class Source:
    """Where a run's first weights are from, as its artefacts record it: no path of the machine.

    `name` is that of the run which wrote the checkpoint, None where it does not say.
    """

    init: str
    name: str | None
    sha256: str
    lr_factor: float


def start_from(network: nn.Module, section: TransferSection) -> Source:
    """Replace the network's weights by those of the checkpoint, and say where they are from.

    Raises:
        CheckpointError: no such file, no checkpoint, or the weights of another network.
    """
    path = Path(section.init)
    checkpoint = Checkpoint.load(path)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its weights do not fit the network of the configuration "
            f"({str(error).splitlines()[-1].strip()}); use the configuration's own architecture."
        ) from error
    name = checkpoint.provenance.get("config", {}).get("name")
    return Source(path.name, name, sha256(path), section.lr_factor)
