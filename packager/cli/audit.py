"""spoco-zoo audit: any bioimage.io model in, what is wrong with its tiling out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from packager.audit.audit import Audit


def audit(
    model: Annotated[Path, typer.Argument(help="Any bioimage.io model: .zip, folder, rdf.yaml.")],
    image_size: Annotated[
        list[str] | None,
        typer.Option(help="Image size to judge, e.g. 2048x3000 (y, x); may be repeated."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML file with pictures.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write the package with a right declaration to this .zip file."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run Python of the package, if only that can be run.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --report and --fix.")
    ] = False,
) -> None:
    """Measure how a network sees space and compare with its declaration; exit code 1: findings."""
    from packager.audit.audit import audit as judge
    from packager.audit.fix import expect_new, fix_package

    sizes = tuple(_size(text) for text in image_size or [])
    for file, suffix in ((report, ".html"), (fix, ".zip")):
        if file is not None:
            expect_new(file, suffix, overwrite=overwrite)
    found = judge(model, image_sizes=sizes, trust=trust)
    if json:
        from json import dumps

        typer.echo(dumps(found.as_json(), indent=2))
    else:
        _print(found)
    if report is not None:
        from packager.report import html_report

        report.write_text(html_report(found), encoding="utf-8", newline="\n")
    if fix is not None:
        fixed = fix_package(found, fix, trust=trust)
        typer.echo(f"{fix}  {len(fixed.findings)} findings left", err=True)
    if found.unmeasured:
        typer.echo(f"error: {model}: nothing could be run: {found.unmeasured}.", err=True)
    raise typer.Exit(found.exit_code)


def _size(text: str) -> tuple[int, ...]:
    from zoo_models.errors import InputError

    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise InputError(
            f"--image-size {text}: expected sizes in pixels, as in 2048x3000 (y, x) or 64x512x512 "
            "(z, y, x)."
        ) from error


def _print(found: Audit) -> None:
    from packager.report import measured_row, proposal_text, verdict_row

    typer.echo(f"{found.name} ({found.source.name}, format {found.format_version})")
    measured = [measured_row(m.output, a) for m in found.measurements for a in m.axes]
    _table(("axis", "reach", "needs halo", "period", "output"), measured)
    verdicts = [verdict_row(v) for v in found.verdicts]
    heads = ("consumer", "output", "image", "outcome", "tiles", "what happens")
    _table(heads, verdicts)
    for finding in found.findings:
        where = f" {finding.axis}" if finding.axis else ""
        typer.echo(f"{finding.severity}: {finding.rule}{where}: {finding.message}")
        sides = [
            f"{name} {value}"
            for name, value in (("declared", finding.declared), ("measured", finding.measured))
            if value
        ]
        if sides or finding.hint:
            typer.echo("  " + "; ".join([*sides, finding.hint] if finding.hint else sides))
    if found.measurements:
        typer.echo(f"right declaration: {proposal_text(found)}")
    typer.echo("no findings" if not found.findings else f"{len(found.findings)} finding(s)")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    grid = Table(box=None, pad_edge=False)
    for heading in heads:
        grid.add_column(heading)
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)
