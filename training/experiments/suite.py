"""Train the runs of a suite, choose the clusterer's settings on val, score, and keep the numbers.

    RUNS/<suite>/<run>-seed<n>/    last.ckpt              the training, resumed when it was cut
                                   seconds.json           how long each attempt took
                                   tuned.safetensors      last weights, settings chosen on val
                                   result-<split>.json    the numbers

What is there already is not done again, so a suite can be stopped and started at will.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.config import TrainingConfig
from training.fit import LAST, fit, read
from training.sections import Split
from training.tuning import embedded, scores_of, tune
from zoo_models.catalog import find_model
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import InputError
from zoo_models.metrics import DatasetScores

TUNED = "tuned.safetensors"
SECONDS = "seconds.json"


@dataclass(frozen=True)
class Run:
    """One row of a table.

    Attributes:
        name: of its folder.
        title: what it is, for the table.
        changes: dotted names of the configuration's values -> new values; None takes one out.
        source: "suite/run", or a catalog model, whose trained weights it starts from.
    """

    name: str
    title: str
    changes: Mapping[str, Any]
    source: str | None = None


@dataclass(frozen=True)
class Suite:
    """Runs on one data set; the configuration they share is configs/<name>.toml."""

    name: str
    title: str
    runs: tuple[Run, ...]

    def select(self, names: Sequence[str]) -> tuple[Run, ...]:
        """The runs of these names, all of them when none is given.

        Raises:
            InputError: an unknown name; the message lists what there is.
        """
        known = {run.name: run for run in self.runs}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                f"The suite {self.name} has no run {unknown[0]!r}; expected {', '.join(known)}."
            )
        return tuple(known[name] for name in names) or self.runs


@dataclass(frozen=True)
class Place:
    """Where runs read and write: `data` holds one folder per data set, `runs` gets the results."""

    data: Path
    runs: Path
    seed: int = 0
    steps: int | None = None

    def folder(self, suite: str, run: str) -> Path:
        return self.runs / suite / f"{run}-seed{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a run gave on one split; `settings` are those chosen on val."""

    suite: str
    run: str
    title: str
    seed: int
    split: str
    steps: int
    seconds: float
    settings: Mapping[str, Any] = field(repr=False)
    scores: DatasetScores


def configuration(suite: Suite, run: Run, place: Place) -> TrainingConfig:
    """The suite's TOML file with the run's changes, the seed and the data's place."""
    path = Path(__file__).parent / "configs" / f"{suite.name}.toml"
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, value in run.changes.items():
        _change(values, name.split("."), value)
    values["name"] = f"{values['name']}-{run.name}"
    values["seed"] = place.seed
    if "supervision" in values:
        values["supervision"]["seed"] = place.seed
    values["data"]["folder"] = str(place.data / values["data"]["folder"])
    if place.steps is not None:
        values["run"] |= {"max_steps": place.steps, "epoch_steps": place.steps}
    if run.source is not None:
        source = _checkpoint(run.source, place)
        values["transfer"] = {"init": str(source), **values.get("transfer", {})}
    return TrainingConfig.model_validate(values)


def _checkpoint(source: str, place: Place) -> Path:
    suite, _, run = source.rpartition("/")
    return place.folder(suite, run) / TUNED if suite else find_model(run).checkpoint


def _change(values: dict[str, Any], name: list[str], value: Any) -> None:
    *sections, last = name
    for section in sections:
        values = values.setdefault(section, {})
    if value is None:
        values.pop(last, None)
    else:
        values[last] = deepcopy(value)


def perform(
    suite: Suite, run: Run, place: Place, *, split: Split = "val", progress: bool = False
) -> Result:
    """Train, tune and score one run, or as much of it as is still missing.

    Raises:
        SpocoZooError: the data, the configuration or the source of a transfer are unfit, or the
            folder holds a result of another number of steps.
    """
    folder = place.folder(suite.name, run.name)
    kept = folder / f"result-{split}.json"
    config = configuration(suite, run, place)
    if kept.exists():
        result = _read(kept)
        if result.steps != config.run.max_steps:
            raise InputError(
                f"{kept}: the result of {result.steps} steps, expected {config.run.max_steps}; "
                "give another --out."
            )
        return result
    _train(config, folder, progress=progress)
    if not (folder / TUNED).exists():
        tune(folder, config).save(folder / TUNED)
    checkpoint = Checkpoint.load(folder / TUNED)
    result = Result(
        suite=suite.name,
        run=run.name,
        title=run.title,
        seed=place.seed,
        split=split,
        steps=config.run.max_steps,
        seconds=sum(json.loads((folder / SECONDS).read_text())),
        settings=dict(checkpoint.clusterer.settings),
        scores=scores_of(checkpoint, embedded(checkpoint, read(config, split))),
    )
    kept.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def _train(config: TrainingConfig, folder: Path, *, progress: bool) -> None:
    """Train to the planned step; the wall time of every attempt is kept in seconds.json."""
    last, record = folder / LAST, folder / SECONDS
    done = torch.load(last, weights_only=False)["global_step"] if last.exists() else 0
    if done >= config.run.max_steps:
        return
    spent = json.loads(record.read_text()) if record.exists() else []
    start = time.monotonic()
    fit(config, folder, resume=last.exists(), progress=progress)
    record.write_text(json.dumps([*spent, round(time.monotonic() - start, 1)]), encoding="utf-8")


def _read(path: Path) -> Result:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Result(**{**values, "scores": DatasetScores(**values["scores"])})


def markdown(results: Sequence[Result]) -> str:
    """The results as a table for docs/results.md."""
    lines = [
        "| run | seed | split | AP@0.5 | mAP | SBD | \\|DiC\\| | ARand error | steps | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        s = r.scores
        lines.append(
            f"| {r.title} | {r.seed} | {r.split} | {s.ap50:.3f} | {s.mean_ap:.3f} | {s.sbd:.3f} | "
            f"{s.dic:.1f} | {s.arand_error:.3f} | {r.steps} | {r.seconds / 60:.1f} |"
        )
    return "\n".join(lines)
