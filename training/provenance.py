"""What a run records about itself in its checkpoint and on its page: configuration, seed, versions.

Nothing here tells where files lay on the training machine.
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training.config import TrainingConfig
from training.transfer import Source

LIBRARIES = ("spoco-zoo", "torch", "lightning", "monai")


def provenance(config: TrainingConfig, source: Source | None) -> dict[str, Any]:
    """JSON values. `source`, the checkpoint that the run started from, becomes config.transfer."""
    record = config.model_dump(mode="json", exclude={"data": {"folder"}, "transfer": True})
    return {
        "config": {**record, "transfer": None if source is None else asdict(source)},
        "data": Path(config.data.folder).name,
        "splits": {"train": "train", "validation": "val"},
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }
