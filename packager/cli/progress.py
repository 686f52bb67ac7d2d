"""How a run over images is followed: a bar for people, or one JSON event per line for pipelines."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from zoo_models.prediction.memory_meter import resident
from zoo_models.prediction.schedule import Done

STEPS = {"fragments": "network", "parts": "joining", "labels": "writing"}
"""What the steps of zoo_models/prediction/passes.py are to someone who waits."""


class Follower:
    """Told of every block; prints lines on stdout, and a bar on a terminal's stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._progress: Any = None
        self._task: Any = None
        self._step = ""

    def plan(self, **facts: Any) -> None:
        """What will be done with an image; printed in words only where nothing else is."""
        self._event("plan", **facts)

    def block(self, done: Done) -> None:
        """One block more; its failure is a line of its own."""
        if self.as_json:
            facts = {
                "step": done.step,
                "start": done.block.start,
                "stop": done.block.stop,
                "done": done.count,
                "total": done.total,
                "pixels_per_second": round(done.pixels / max(done.seconds, 1e-9)),
                "memory_bytes": resident(),
                "error": done.error,
            }
            self._event("block", **facts)
            return
        if done.error is not None and done.total > 1:
            where = f"block {done.block.start} to {done.block.stop}"
            typer.echo(f"failed: {where} in step '{done.step}': {done.error}", err=True)
        self._bar(done)

    def finished(self, line: str, **facts: Any) -> None:
        """An image is done."""
        self._end_bar()
        if self.as_json:
            self._event("image", **facts)
        else:
            typer.echo(line)

    def failed(self, message: str) -> None:
        """An image could not be done; the next ones are."""
        self._end_bar()
        if self.as_json:
            self._event("error", message=message)
        typer.echo(f"error: {message}", err=True)

    def _event(self, name: str, **facts: Any) -> None:
        if self.as_json:
            typer.echo(json.dumps({"event": name, "time": round(time.time(), 3), **facts}))

    def _bar(self, done: Done) -> None:
        """A single block needs no bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        if done.total == 1:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.2g} Mpx/s  {task.fields[memory]:.1f} GiB  left"),
                TimeLeft(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        if done.step != self._step or self._task is None:
            self._step = done.step
            self._task = self._progress.add_task(
                STEPS[done.step], total=done.total, rate=0, memory=0
            )
        self._progress.update(
            self._task,
            completed=done.count,
            rate=done.pixels / max(done.seconds, 1e-9) / 1e6,
            memory=resident() / 2**30,
        )

    def _end_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._task, self._step = None, None, ""
