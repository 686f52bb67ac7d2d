"""spoco-zoo export: checkpoint or catalog name in, bioimage.io package out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from packager.export import ExportReport


def export(
    source: Annotated[str, typer.Argument(help="Checkpoint file, or name of a catalog model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package to write, a .zip file.")],
    card: Annotated[
        Path | None,
        typer.Option(help="Model card (card.toml) [default: the catalog's, or beside SOURCE]."),
    ] = None,
    kind: Annotated[
        Literal["embeddings", "instances", "clusterer", "boundaries"] | None,
        typer.Option(help="What the package gives [default: embeddings, or what --for needs]."),
    ] = None,
    target: Annotated[
        Literal["ilastik", "fiji", "core"] | None,
        typer.Option("--for", help="Make it for one consumer instead of for all."),
    ] = None,
    teacher: Annotated[
        bool,
        typer.Option("--teacher", help="Embeddings of the teacher, too: consistency clustering."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the package.")] = False,
) -> None:
    """Write a package that passes the zoo's own tests and tiles exactly; leaves nothing else.

    embeddings: for every consumer, tiled; clustered by `spoco-zoo predict`. boundaries: foreground
    and boundary for ilastik, tiled. instances: labels, one pass per image. clusterer: labels from
    stitched embeddings. --for ilastik gives boundaries, fiji instances, core embeddings; with
    --kind embeddings or boundaries, fiji gets a fixed input size, which it needs for tiling.

    --teacher, for checkpoints trained with [teacher] keep = true: embeddings of the network, then
    those of its teacher; `spoco-zoo predict` leaves objects out on which the two do not agree.
    """
    from packager.card import Card
    from packager.cli.outputs import expect_writable
    from packager.export import export as write_package
    from packager.kinds import Wanted
    from zoo_models.catalog import find_checkpoint
    from zoo_models.checkpoint import Checkpoint

    checkpoint = find_checkpoint(source)
    card = card or checkpoint.with_name("card.toml")
    loaded = Checkpoint.load(checkpoint)
    expect_writable(out.parent)
    wanted = Wanted(kind, target, teacher)
    report = write_package(loaded, Card.load(card), out, wanted, overwrite=overwrite)
    _tell(report)


def _tell(report: ExportReport) -> None:
    typer.echo(f"{report.package}  {report.size / 1e6:.1f} MB  sha256 {report.sha256}")
    for name, difference in report.differences.items():
        typer.echo(f"  {name}: differs from the network by {difference:.1e} of its largest value")
    typer.echo(f"  {len(report.passed)} of the zoo's own tests passed, no warnings")
    for verdict in report.certificate.verdicts:
        typer.echo(f"  tiles in {verdict.consumer}: {verdict.outcome}")
