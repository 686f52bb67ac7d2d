"""spoco-zoo evaluate: predicted and true labels in, scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Predicted label image, or a folder of them.")],
    truth: Annotated[Path, typer.Argument(help="True label image, or a folder of them.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score label images: AP@0.5, mAP, SBD, |DiC|, ARand error, false splits and merges."""
    from zoo_models.evaluation import evaluate as score_files

    table = score_files(predicted, truth)
    if json:
        from json import dumps

        typer.echo(dumps(table.as_json(), indent=2))
        return
    typer.echo(table)
