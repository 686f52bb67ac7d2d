"""spoco-zoo tune: a training run in, a checkpoint with chosen clusterer settings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def tune(
    run: Annotated[Path, typer.Argument(help="Folder of a training run, finished or cut.")],
    config: Annotated[
        Path, typer.Argument(help="Its configuration, with the values to try in [clusterer.tried].")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")],
    data: Annotated[
        Path | None, typer.Option(help="Data folder to use instead of data.folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Choose the clusterer's settings on the val split, for the weights of the last step."""
    from packager.cli.train import require_training_extra

    require_training_extra()
    from training.config import load_config
    from training.tuning import tune as choose

    settings = load_config(config, data=data)
    checkpoint = choose(run, settings)
    checkpoint.save(out, overwrite=overwrite)
    for name in settings.clusterer.tried:
        typer.echo(f"{name} = {checkpoint.clusterer.settings[name]}")
    if checkpoint.clusterer.settings.get("spread"):
        typer.echo("with the background's spread: radius is in its standard deviations")
    found = checkpoint.provenance["validation"]
    typer.echo(f"AP@0.5 {found['ap50']:.3f} on {found['images']} validation images\n{out}")
