"""spoco-zoo experiments: declared runs, trained, scored and printed as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

ALL = "all"


@app.command("list")
def list_() -> None:
    """The suites and their runs, and the experiments on shift equivariance."""
    from packager.cli.train import require_training_extra

    require_training_extra()
    from training.experiments.shift_equivariance.suite import EXPERIMENTS
    from training.experiments.spoco import SUITES

    for suite in SUITES.values():
        typer.echo(f"{suite.name}: {suite.title}")
        for run in suite.runs:
            typer.echo(f"  {run.name:20s} {run.title}")
    typer.echo("Shift equivariance, no --only and no --split; 'all' runs every one:")
    for experiment in EXPERIMENTS.values():
        typer.echo(f"  {experiment.name:20s} {experiment.title}")


@app.command("run")
def run(
    name: Annotated[
        str,
        typer.Argument(
            help="A suite or an experiment, see `spoco-zoo experiments list`; 'all': every "
            "experiment on shift equivariance."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds one folder per data set; suites need it, of the experiments "
            "fig6 uses it."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A run of the suite; may be repeated [default: all].")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, help="Of weights, patches and drawn labels.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps in place of the suite's own.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Split that is scored [default: val]."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="An experiment in at most two minutes.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
) -> None:
    """Train, tune and score runs of a suite, or run experiments, and print their tables.

    What is done already is not done again: a stopped command goes on where it was.
    """
    from packager.cli.outputs import expect_writable
    from packager.cli.train import quieten_lightning, require_training_extra

    require_training_extra()
    import torch

    from training.experiments.shift_equivariance.suite import EXPERIMENTS
    from training.experiments.spoco import SUITES
    from training.experiments.suite import Place, markdown, perform
    from zoo_models.errors import InputError

    if threads:
        torch.set_num_threads(threads)
    expect_writable(out)
    quieten_lightning()
    if name == ALL or name in EXPERIMENTS:
        if only or steps or split:
            raise InputError(
                f"--only, --steps and --split are options of suites, and {name} is an experiment; "
                "leave them out."
            )
        _run_experiments([*EXPERIMENTS] if name == ALL else [name], out, quick, seed, data)
        return
    if name not in SUITES:
        raise InputError(
            f"No suite {name!r}; expected one of {', '.join(SUITES)}, or of the experiments "
            f"{', '.join(EXPERIMENTS)}, all."
        )
    if data is None or quick:
        raise InputError(
            f"{name} is a suite: it needs --data FOLDER, the folder that holds the data sets, and "
            "has no --quick; use --steps to cut it short."
        )
    place = Place(data, out, seed=seed, steps=steps)
    chosen = SUITES[name].select(only or [])
    typer.echo(
        markdown(
            [perform(SUITES[name], r, place, split=split or "val", progress=True) for r in chosen]
        )
    )


@app.command("all")
def all_(
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets, for fig6 [default: one example].")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, help="Of weights and pictures.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Each experiment in at most two minutes.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
) -> None:
    """Every experiment on shift equivariance, one after the other; the same as `run all`."""
    run(ALL, data=data, only=None, out=out, seed=seed, quick=quick, threads=threads)


def _run_experiments(
    names: list[str], out: Path, quick: bool, seed: int, data: Path | None
) -> None:
    """Print each table as soon as it is there."""
    from training.experiments.shift_equivariance.suite import perform

    for name in names:
        with _bars() as progress:
            result = perform(name, out, quick=quick, seed=seed, data=data, progress=progress)
        typer.echo(result.markdown())


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per title on a terminal, which goes when the work is done; elsewhere nothing."""
    import sys

    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=total)
            bars.update(tasks[title], completed=done)

        yield progress
