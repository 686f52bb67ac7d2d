"""spoco-zoo import: a checkpoint of kreshuklab/spoco in, a checkpoint of ours out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    old: Annotated[Path, typer.Argument(help="Checkpoint of kreshuklab/spoco, .pytorch.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .safetensors.")],
    gain: Annotated[
        float, typer.Option(help="Network input = pixel * gain + offset; no file tells them.")
    ],
    offset: Annotated[float, typer.Option(help="See --gain.")] = 0.0,
    delta_v: Annotated[float, typer.Option(help="Margin of the pull term it was trained with.")] = (
        0.5
    ),
    delta_d: Annotated[float, typer.Option(help="Margin of the push term it was trained with.")] = (
        2.0
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Take over a network that the authors' code trained, with the halo that it needs.

    The network is inferred from the shapes of its tensors; no code in the file is run.
    """
    from packager.cli.outputs import expect_writable
    from zoo_models.checkpoint import Normalisation
    from zoo_models.old_checkpoints import Told, import_checkpoint

    expect_writable(out.parent)
    checkpoint = import_checkpoint(old, Told(Normalisation(gain, offset), delta_v, delta_d))
    checkpoint.save(out, overwrite=overwrite)
    told = ", ".join(f"{name} {value}" for name, value in checkpoint.kwargs.items())
    geometry = checkpoint.geometry
    typer.echo(f"{out}  {checkpoint.architecture}: {told}")
    typer.echo(f"  period {geometry.period[-1]}, halo {geometry.halo[-1]}, per side and axis")
    if checkpoint.sees_whole_tiles:
        typer.echo("  its group norm sees whole tiles: for comparison only, export refuses it")
    else:
        typer.echo(f"next: spoco-zoo export {out} -o PACKAGE.zip --card CARD")
