"""Single volumes or images, each named by its path: [data.volumes.SPLIT] of the configuration.

A path is relative to data.folder, or absolute, and is one of

    stack.tif                 a TIFF, or a PNG for labels and images in 2D
    file.h5:/path/inside      an array in an HDF5 file
    store.zarr/path/inside    a Zarr array or a multiscale OME-Zarr group (its finest resolution)

[data.crop.SPLIT] cuts one volume into several splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.layouts.arrays import Array, as_array
from training.layouts.sources import ImageFile, Pair


def pairs(folder: Path, *, images: Sequence[str], labels: Sequence[str]) -> list[Pair]:
    """Image i with labels i; the name of the pair is the image's path."""
    return [
        Pair(image, _source(image, folder), _source(ids, folder))
        for image, ids in zip(images, labels, strict=True)
    ]


def _source(text: str, folder: Path) -> Array | ImageFile:
    return as_array(text, folder) or ImageFile(folder / text)
