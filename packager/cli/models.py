"""spoco-zoo models: what the catalog holds."""

from __future__ import annotations

import typer


def models() -> None:
    """List the models that come with this installation."""
    from packager.card import Card
    from zoo_models.catalog import list_models

    for model in list_models():
        card = Card.load(model.card)
        size = model.checkpoint.stat().st_size / 1e6
        typer.echo(f"{model.name}  {card.version}  {size:.1f} MB  {card.licence}")
        typer.echo(f"  {card.description}")
