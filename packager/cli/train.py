"""spoco-zoo train: configuration in, run folder with a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TRAIN_EXTRA = ("h5py", "lightning", "monai", "tensorboard", "zarr")


def train(
    config: Annotated[Path, typer.Argument(help="Training configuration, TOML.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder [default: runs/NAME].")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder, laid out as data.layout says, instead of data.folder."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint, or name of a catalog model, whose weights the run starts from: sets "
            "transfer.init. The learning rate stays the configuration's, times lr_factor if it has "
            "a [transfer] section. Not read again with --resume."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all].")] = None,
) -> None:
    """Train a network; writes checkpoint.safetensors at every best validation score.

    Open index.html in the run folder for curves and pictures: every validation writes it anew.
    """
    require_training_extra()
    import torch

    from packager.cli.outputs import expect_writable
    from training.config import load_config
    from training.fit import fit
    from zoo_models.catalog import find_checkpoint

    if threads:
        torch.set_num_threads(threads)
    start = None if init is None else find_checkpoint(init)
    settings = load_config(config, data=data, init=start)
    run_dir = out or Path("runs") / settings.name
    expect_writable(run_dir)
    quieten_lightning()
    checkpoint = fit(settings, run_dir, resume=resume, overwrite=overwrite, progress=True)
    typer.echo(
        f"{checkpoint}\nnext: spoco-zoo export {checkpoint} -o {settings.name}.zip --card CARD"
    )


def quieten_lightning() -> None:
    """Leave the progress bar and real warnings, not Lightning's tips and its view of our folder."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")


def require_training_extra() -> None:
    """Say which libraries are missing, and how to get them.

    Raises:
        InputError: one is missing.
    """
    from importlib.util import find_spec

    from zoo_models.errors import InputError

    missing = [name for name in TRAIN_EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(
            f"Training needs {', '.join(missing)}, not installed here: "
            "pip install 'spoco-zoo[train]'."
        )
