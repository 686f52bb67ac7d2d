"""Data folders: images/, labels/ and splits.json, which names the files of each split."""

from __future__ import annotations

import json
from pathlib import Path

from zoo_models.errors import ImageError

SUFFIXES = (".tif", ".tiff", ".png")


def split_names(folder: Path, split: str) -> tuple[str, ...]:
    """The names (files without suffix) of one split of a data folder.

    Raises:
        ImageError: no splits.json, not JSON, or the split is missing or empty.
    """
    index = folder / "splits.json"
    if not index.is_file():
        raise ImageError(
            f"{folder}: no splits.json; expected a folder with images/, labels/ and splits.json "
            '({"train": [names], "val": [names]}).'
        )
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ImageError(f"{index}: not a JSON file ({error}); write it anew.") from error
    splits = content if isinstance(content, dict) else {}
    if split not in splits:
        raise ImageError(
            f"{index}: no split {split!r}, found {', '.join(splits) or 'none'}; expected lists of "
            "names such as 'train' and 'val'."
        )
    names = splits[split]
    if not isinstance(names, list) or not names:
        raise ImageError(f"{index}: split {split!r} is empty; name at least one image.")
    return tuple(str(name) for name in names)


def data_file(folder: Path, kind: str, name: str) -> Path:
    """The file of `name` in folder/images or folder/labels (`kind`).

    Raises:
        ImageError: there is none.
    """
    candidates = [folder / kind / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    raise ImageError(
        f"{folder / kind / name}: no file with suffix {', '.join(SUFFIXES)}, but splits.json names "
        "it; add the file or take the name out."
    )
