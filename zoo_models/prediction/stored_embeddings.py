"""Embeddings from files, brought once to D(z)yx float32; axes are never guessed from sizes alone.

(D, Y, X)        (1, D, Y, X)          without names: these four, and where the model is known
(D, Z, Y, X)     (1, D, Z, Y, X)       only those of its axes, with its D (with a teacher 2 D)
OME-TIFF, ImageJ, OME-Zarr             by the names of their axes, in any order
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import ImageError
from zoo_models.prediction.clustering import EmbeddingSpace
from zoo_models.prediction.decoding import VoxelSize
from zoo_models.prediction.stored_arrays import Stored, read_stored


@dataclass(frozen=True, eq=False)
class StoredEmbeddings:
    """Embeddings D(z)yx float32; `axes` 'yx' or 'zyx'; micrometres per axis where the file tells
    them."""

    data: NDArray[np.float32]
    axes: str
    voxel_size_um: VoxelSize | None


def read_embeddings(source: Path | str, space: EmbeddingSpace) -> StoredEmbeddings:
    """Read .npy, TIFF, FILE.h5:/DATASET or STORE.zarr/ARRAY; `space` is what the model is known by.

    Raises:
        ImageError: no such file, damaged, no floats, no pixels, or axes that are not those above.
    """
    stored = read_stored(source)
    shape = stored.data.shape
    if stored.data.dtype.kind != "f":
        raise ImageError(
            f"{source}: has values of type {stored.data.dtype}, expected embeddings, which are "
            "floats; name the output of the network, not an image or labels"
        )
    if stored.data.size == 0:
        raise ImageError(f"{source}: has the shape {shape}, expected at least one pixel")
    axes = _named(stored, space) if stored.names else _by_shape(shape, space)
    size = dict(zip(axes, shape, strict=True)) if axes else {}
    found = "".join(a for a in "zyx" if a in size)
    if "c" not in size or (space.axes or found) != found:
        raise _other_axes(source, stored, space)
    _expect_dimensions(source, stored, size, space)
    order = [i for i, a in enumerate(axes) if a == "1"] + [axes.index(a) for a in "c" + found]
    data = stored.data.transpose(order).reshape([size[a] for a in "c" + found])
    um = [stored.size_um[a] for a in found if a in stored.size_um]
    return StoredEmbeddings(
        np.ascontiguousarray(data, np.float32),
        found,
        tuple(um) if len(um) == len(found) else None,
    )


def _named(stored: Stored, space: EmbeddingSpace) -> str:
    """One letter per dimension, '1' for those that are dropped; '' where the names do not do."""
    names = stored.names.lower()
    if "c" not in names:
        names = names.replace("s", "c")  # the samples of a TIFF
    needed = "c" + (space.axes or "yx")
    axes = "".join(
        "1" if n == 1 and a not in needed else a
        for a, n in zip(names, stored.data.shape, strict=True)
    )
    kept = axes.replace("1", "")
    good = set("cyx") <= set(kept) <= set("czyx") and len(set(kept)) == len(kept)
    return axes if good else ""


def _by_shape(shape: tuple[int, ...], space: EmbeddingSpace) -> str:
    """As `_named`, for a file without names."""
    flat = space.axes == "yx" or (space.axes is None and shape[0] == 1)
    axes = {3: "cyx", 4: "1cyx" if flat else "czyx", 5: "1czyx"}.get(len(shape), "")
    return axes if not axes.startswith("1") or shape[0] == 1 else ""


def _expect_dimensions(
    source: Path | str, stored: Stored, size: dict[str, int], space: EmbeddingSpace
) -> None:
    """As many as the model has; of an unknown model, no more than the image is wide and high."""
    known, found, shape = space.dimensions, size["c"], stored.data.shape
    if known is not None and found not in (known, 2 * known):
        raise ImageError(
            f"{source}: has the shape {shape}, read as {found} embedding dimensions, expected "
            f"{known} as the model has; name the model that made them, and store its output "
            "unchanged"
        )
    if known is None and not stored.names and found > min(size["y"], size["x"]):
        raise ImageError(
            f"{source}: has the shape {shape}, in which the embedding dimensions may be first or "
            "last, expected (D, [Z,] Y, X) or (1, D, [Z,] Y, X); move them to the front, or name "
            "the model with --package"
        )


def _other_axes(source: Path | str, stored: Stored, space: EmbeddingSpace) -> ImageError:
    names = f" and the axes {stored.names.lower()}" if stored.names else ""
    space_axes = {None: "[Z,] Y, X", "yx": "Y, X", "zyx": "Z, Y, X"}[space.axes]
    model = "" if space.axes is None else " of the model"
    return ImageError(
        f"{source}: has the shape {stored.data.shape}{names}, expected the axes (D, {space_axes}) "
        f"or (1, D, {space_axes}){model}; store one image so, D named c where axes have names"
    )
