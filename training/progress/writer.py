"""The Lightning callback that leaves pictures and a page behind, at every validation."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from training.config import TrainingConfig
from training.module import EmbeddingModule, Prediction
from training.progress.curves import read_curves
from training.progress.page import PICTURES, RunState, page
from training.progress.pictures import draw_page, draw_row
from training.provenance import provenance
from zoo_models.colours import Floats, Rgb
from zoo_models.errors import InputError

PAGE = "index.html"


@rank_zero_only
def remove_progress(run_dir: Path) -> None:
    """Tables and pictures of the run that a new one replaces, or of one cut before its first
    validation: with them its curves would continue an older run's."""
    for folder in run_dir.glob("csv/version_*"):
        shutil.rmtree(folder)
    for pattern in (f"{PICTURES}/step-*.png", "tensorboard/events.out.tfevents.*", PAGE):
        for path in run_dir.glob(pattern):
            path.unlink()


class ProgressWriter(Callback):
    """Writes RUN/pictures/step-NNNNNN.png and RUN/index.html; only the first process does.

    `pictured`: the numbers of the validation images to draw, the same in all epochs. Of the images
    only their finished rows are kept, until the epoch's picture is written.
    """

    def __init__(self, config: TrainingConfig, run_dir: Path, *, pictured: tuple[int, ...]) -> None:
        self.config = config
        self.run_dir = run_dir
        self.pictured = pictured
        self._directions: dict[int, Floats] = {}
        self._rows: list[Rgb] = []

    def state_dict(self) -> dict[str, Any]:
        return {"directions": self._directions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._directions = state_dict["directions"]

    def on_validation_start(self, *_: Any) -> None:
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.is_global_zero or batch not in self.pictured:
            return
        found: Prediction = outputs["prediction"]
        row, self._directions[batch] = draw_row(
            found.sample,
            found.embeddings,
            found.instances,
            previous=self._directions.get(batch),
        )
        self._rows.append(row)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero:
            return
        picture = BytesIO()
        draw_page(self._rows).save(picture, "PNG", optimize=True)
        name = f"step-{trainer.global_step:06d}.png"
        write_whole(self.run_dir / PICTURES / name, picture.getvalue())
        self._rows = []
        self._write_page(trainer, pl_module, "running")

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """The means of the last epoch are known only now; a kill must not lose them.

        Lightning's step counter of the tables is one too high after a resume (2.6), which would
        also log other steps than an undisturbed run does.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        _save_tables(trainer)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._write_page(trainer, pl_module, "finished")

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        reason = f"{type(exception).__name__}: {exception}".strip(": ")
        self._write_page(trainer, pl_module, f"stopped: {reason}")

    def _write_page(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, said: str
    ) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, EmbeddingModule)
        _save_tables(trainer)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        text = page(
            provenance(self.config, pl_module.source),
            RunState(trainer.global_step, self.config.run.max_steps, said, now),
            curves=read_curves(self.run_dir),
            pictures=sorted(self.run_dir.glob(f"{PICTURES}/step-*.png")),
        )
        write_whole(self.run_dir / PAGE, text.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: who looks sees the old file or the new one.

    Raises:
        InputError: no file can be written there; none is left half-written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}), expected a writable folder "
            "with room: choose another --out."
        ) from error


def _save_tables(trainer: lightning.Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
