"""spoco-zoo evaluate: predicted and true labels in, scores out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo_models.evaluation import EvaluationTable

COLUMNS = {
    "ap50": "AP@0.5",
    "mean_ap": "mAP",
    "sbd": "SBD",
    "dic": "|DiC|",
    "arand_error": "ARand err",
    "false_splits": "splits",
    "false_merges": "merges",
    "predicted_instances": "found",
    "true_instances": "true",
}
"""Field of the scores -> its heading."""


def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Predicted label image, or a folder of them.")],
    truth: Annotated[Path, typer.Argument(help="True label image, or a folder of them.")],
    split: Annotated[
        str | None,
        typer.Option(help="TRUTH is a data folder (labels/, splits.json): score this split."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score label images: AP@0.5, mAP, SBD, |DiC|, ARand error, false splits and merges."""
    from zoo_models.evaluation import evaluate as score_files

    table = score_files(predicted, truth, split=split)
    if json:
        from json import dumps

        typer.echo(dumps(table.as_json(), indent=2))
    else:
        _print(table)


def _print(table: EvaluationTable) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table("image", box=None, pad_edge=False)
    for heading in COLUMNS.values():
        grid.add_column(heading, justify="right")
    rows = [(row.name, row.scores.as_dict()) for row in table.rows]
    rows.append((f"all {table.overall.images}", table.overall.as_dict()))
    for name, scores in rows if len(rows) > 2 else rows[:1]:
        grid.add_row(name, *(_text(scores[field]) for field in COLUMNS))
    Console().print(grid)
    if len(rows) > 2:
        typer.echo(
            "all: AP, SBD, |DiC| and ARand error are means over images, the rest are totals; "
            f"AP@0.5 over all instances together: {table.overall.pooled_ap50:.3f}"
        )


def _text(value: float | int) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
