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
