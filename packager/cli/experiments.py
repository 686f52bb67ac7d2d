"""spoco-zoo experiments: declared runs, trained, scored and printed as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_() -> None:
    """The suites and their runs."""
    from packager.cli.train import require_training_extra

    require_training_extra()
    from training.experiments.spoco import SUITES

    for suite in SUITES.values():
        typer.echo(f"{suite.name}: {suite.title}")
        for run in suite.runs:
            typer.echo(f"  {run.name:20s} {run.title}")


@app.command("run")
def run(
    suite: Annotated[str, typer.Argument(help="A suite; see `spoco-zoo experiments list`.")],
    data: Annotated[Path, typer.Option(help="Folder that holds one folder per data set.")],
    only: Annotated[
        list[str] | None, typer.Option(help="A run of the suite; may be repeated [default: all].")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, help="Of weights, patches and drawn labels.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps in place of the suite's own.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Split that is scored.")
    ] = "val",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
) -> None:
    """Train, tune and score runs of a suite, and print their table.

    What is done already is not done again: a stopped command goes on where it was.
    """
    from packager.cli.train import quieten_lightning, require_training_extra

    require_training_extra()
    import torch

    from training.experiments.spoco import SUITES
    from training.experiments.suite import Place, markdown, perform
    from zoo_models.errors import InputError

    if threads:
        torch.set_num_threads(threads)
    quieten_lightning()
    if suite not in SUITES:
        raise InputError(f"No suite {suite!r}; expected one of {', '.join(SUITES)}.")
    place = Place(data, out, seed=seed, steps=steps)
    chosen = SUITES[suite].select(only or [])
    typer.echo(
        markdown([perform(SUITES[suite], r, place, split=split, progress=True) for r in chosen])
    )
