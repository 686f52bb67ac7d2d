"""Which images of a layout belong to a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from zoo_models.errors import ImageError
from zoo_models.splits import split_names


def names_of_split(
    folder: Path,
    split: str,
    names: Iterable[str],
    *,
    group: Callable[[str], str] = lambda name: name,
) -> list[str]:
    """Names of a split, of a set that is published without one.

    A splits.json in the folder decides. Without one, the groups are ordered by the SHA-256 of their
    name; the first tenth of them is "test", the second "val" (at least one group each), the rest
    "train". Images of one group (two sites of a well, say) are never in different splits.

    Raises:
        ImageError: splits.json names unknown images, or there are fewer than three groups.
    """
    known = sorted(names)
    if (folder / "splits.json").is_file():
        return listed(folder, split, known)
    groups = sorted({group(name) for name in known}, key=_digest)
    if len(groups) < 3:
        raise ImageError(
            f"{folder}: holds {len(groups)} groups of images, expected at least 3 to make train, "
            "val and test: write a splits.json"
        )
    tenth = max(1, round(len(groups) / 10))
    parts = {
        "test": groups[:tenth],
        "val": groups[tenth : 2 * tenth],
        "train": groups[2 * tenth :],
    }
    return [name for name in known if group(name) in parts[split]]


def listed(folder: Path, split: str, names: Iterable[str]) -> list[str]:
    """Names of a published split; where there is a splits.json, only those that it lists.

    Raises:
        ImageError: splits.json names images that are not among `names`.
    """
    known = list(names)
    if not (folder / "splits.json").is_file():
        return known
    chosen = split_names(folder, split)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        example = f", expected names such as {known[0]}" if known else ""
        raise ImageError(
            f"{folder / 'splits.json'}: split {split!r} names {', '.join(unknown[:3])} "
            f"({len(unknown)} of {len(chosen)} names), not found{example}: correct it"
        )
    return list(chosen)


def expect_some(found: list[Path], folder: Path, *, pattern: str, layout: str) -> list[Path]:
    """`found`, unless it is empty.

    Raises:
        ImageError: it is.
    """
    if not found:
        raise ImageError(
            f"{folder}: no {pattern}; expected the files of {layout} as published (docs/data.md): "
            "set data.folder to the folder that holds them"
        )
    return found


def no_labels(folder: Path, split: str, *, layout: str, known: str) -> ImageError:
    """The error for a split whose labels its authors have not published."""
    return ImageError(
        f"{folder}: {layout} has no labels for the split {split!r}, expected {known}: use another"
    )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
