"""Where a command may write, asked before any work is done."""

from __future__ import annotations

import os
from pathlib import Path


def expect_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to. Makes nothing.

    Raises:
        InputError: the folder, or the nearest one above it that exists, is a file or read-only.
    """
    from zoo_models.errors import InputError

    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: found a file, expected a folder; give another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: nothing may be written there; give another --out.")


def expect_new(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        InputError: its folder cannot be written to.
        OutputExistsError: it exists, and `overwrite` is false.
    """
    from zoo_models.errors import OutputExistsError

    expect_writable(out.parent)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already: use --overwrite or another --out.")
