"""spoco-zoo tune: weights in, a checkpoint with clusterer settings chosen on images out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def tune(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a training run, finished or cut; or a checkpoint, or the name of a "
            "catalog model, to suit it to other images."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Argument(
            help="Configuration, with the values to try in [clusterer.tried]; that of the run. "
            "Of a checkpoint only [data] and [clusterer] count [default: a catalog model's own]."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")],
    data: Annotated[
        Path | None, typer.Option(help="Data folder to use instead of data.folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Choose the clusterer's settings on the val split; of a run, for the weights of the last step.

    A catalog model needs no CONFIG: spoco-zoo tune nuclei-fluo-2d --data FOLDER -o mine.safetensors
    """
    from packager.cli.outputs import expect_new
    from packager.cli.train import require_training_extra

    require_training_extra()
    expect_new(out, overwrite=overwrite)
    from training.config import load_config
    from training.tuning import tune as tune_run
    from training.tuning import tune_checkpoint
    from zoo_models.catalog import find_checkpoint
    from zoo_models.checkpoint import Checkpoint

    settings = load_config(config or _own_config(source, data), data=data)
    if Path(source).is_dir():
        checkpoint = tune_run(Path(source), settings)
    else:
        checkpoint = tune_checkpoint(Checkpoint.load(find_checkpoint(source)), settings)
    checkpoint.save(out, overwrite=overwrite)
    for name in settings.clusterer.tried:
        typer.echo(f"{name} = {checkpoint.clusterer.settings[name]}")
    if checkpoint.clusterer.settings.get("spread"):
        typer.echo("with the background's spread: radius is in its standard deviations")
    found = checkpoint.provenance["validation"]
    typer.echo(f"AP@0.5 {found['ap50']:.3f} on {found['images']} validation images\n{out}")


def _own_config(source: str, data: Path | None) -> Path:
    from zoo_models.catalog import model_named
    from zoo_models.errors import InputError

    model = model_named(source)
    if model is None:
        raise InputError(
            f"{source}: only a catalog model brings a configuration of its own; give CONFIG, too."
        )
    if data is None:
        raise InputError(
            f"{source} without CONFIG: expected --data FOLDER, with the images it is to suit."
        )
    return model.config
