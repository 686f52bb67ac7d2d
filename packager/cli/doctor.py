"""spoco-zoo doctor: is this installation sound."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Say what is installed, which devices there are, and who owns our import names."""
    from packager.doctor import diagnose

    diagnosis = diagnose()
    width = max(len(row.name) for row in diagnosis.rows)
    for row in diagnosis.rows:
        typer.echo(f"{row.name:{width}}  {row.value}")
    for problem in diagnosis.problems:
        typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1 if diagnosis.problems else 0)
