"""The bar of `spoco-zoo train`: where the run is, its loss terms, its last validation.

    step 500/12000 ━━╸━━━━━━━━━━━━━━━━   4% 0:02:41, 1:01:50 left  AP@0.5 0.612 SBD 0.701
    loss 1.24 pull 0.113 push 0.301 obj 0.822 reg 3.1 unl 0.004

Every validation leaves a line above it. Where the output is no terminal, only these are written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SHORT = {
    "object": "obj",
    "regulariser": "reg",
    "unlabeled_push": "unl",
    "consistency": "con",
    "phase": "pha",
    "adversarial": "adv",
}
"""Loss terms whose names would not leave room for all of them in 100 columns."""

SCORES = {"val/ap50": "AP@0.5", "val/sbd": "SBD"}
PAUSE_S = 0.25
"""Between two looks at the numbers: each waits for the accelerator."""


def terms_line(metrics: Mapping[str, Any]) -> str:
    """The loss of the last step, then its terms: "loss 1.24 pull 0.113 ..."; "" before a step."""
    start, end = "train/", "_step"
    names = [k[len(start) : -len(end)] for k in metrics if k.startswith(start) and k.endswith(end)]
    names.sort(key=lambda name: name != "loss")  # the others keep their order
    return " ".join(
        f"{SHORT.get(name, name)} {float(metrics[f'{start}{name}{end}']):.3g}" for name in names
    )


def scores_line(metrics: Mapping[str, Any]) -> str:
    """AP@0.5 and SBD of the last validation; "" before one."""
    return " ".join(
        f"{name} {float(metrics[key]):.3f}" for key, name in SCORES.items() if key in metrics
    )


class Bar(Callback):
    """Draws on `console`, stdout when None; no thread draws beside the training."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live: Live | None = None
        self._terms = Text(no_wrap=False)
        self._steps = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            TimeRemainingColumn(),
            TextColumn("left  {task.fields[said]}"),
            console=self.console,
            auto_refresh=False,
            speed_estimate_period=300,
        )
        self._looked = 0.0
        self._scores = ""

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._task = self._steps.add_task(
            "", total=trainer.max_steps, completed=trainer.global_step, said=""
        )
        if self.console.is_terminal:
            self._live = Live(
                Group(self._steps, self._terms), console=self.console, auto_refresh=False
            )
            self._live.start(refresh=True)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._live is not None and time.monotonic() - self._looked >= PAUSE_S:
            self._draw(trainer)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._live is not None:
            number = sum(map(int, trainer.num_val_batches))
            self._steps.update(self._task, said=f"validation {batch_idx + 1}/{number}")
            self._live.refresh()

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        metrics = trainer.callback_metrics
        self._scores = scores_line(metrics)
        line = f"step {trainer.global_step}  {terms_line(metrics)}  {self._scores}"
        self.console.print(line, highlight=False, soft_wrap=not self.console.is_terminal)
        if self._live is not None:
            self._draw(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._live is not None:
            self._draw(trainer)
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _draw(self, trainer: lightning.Trainer) -> None:
        assert self._live is not None
        self._looked = time.monotonic()
        self._terms.plain = terms_line(trainer.callback_metrics)
        self._steps.update(self._task, completed=trainer.global_step, said=self._scores)
        self._live.refresh()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
