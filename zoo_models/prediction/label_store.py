"""Label images of any size as OME-Zarr 0.5, written block by block.

    cells.zarr/             a multiscale image over the arrays below, so that programs that open
    |                       the root find pixels
    +- labels/              lists its label images
       +- instances/        a label image (image-label, multiscales)
          +- 0/  1/  2/     uint32, nearest neighbour: 0 is the image, the last within one chunk

One file per chunk and no shards: 100,000 x 100,000 pixels in chunks of 1,024 are 9,604 files, and
every reader of Zarr v3 can open them. Chunks of background take no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError, ImageError
from zoo_models.geometry import Box
from zoo_models.prediction.multiscale import (
    aligned_place,
    chunk_of,
    chunk_places,
    continue_array,
    continue_group,
    continue_store,
    multiscale,
    pyramid,
    spacing_um,
)

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, eq=False)
class LabelStore:
    """A label image on the local disk; can be pickled, so that processes may share the writing.

    Attributes:
        path: the root of the OME-Zarr store.
        name: the label image's group is labels/`name`.
        levels: arrays of uint32, finest first, with the axes of the image.
    """

    path: Path
    name: str
    levels: tuple[zarr.Array[Any], ...]

    @classmethod
    def create(
        cls,
        path: Path | str,
        shape: Sequence[int],
        axes: str,
        *,
        voxel_size_um: Sequence[float] | None = None,
        origin: Sequence[int] | None = None,
        chunk: Sequence[int],
        name: str = "instances",
    ) -> LabelStore:
        """Make a label image of zeros, or continue one that a stopped run left.

        Call it once, before others open it: what a killed process left half-written is removed.

        Args:
            path: the store, by custom `*.zarr`; folders above it are made.
            shape: of the whole image, in the order of `axes`.
            axes: 'yx', 'zyx', 'tyx' or 'tzyx'.
            voxel_size_um: micrometres per space axis of `axes`.
            origin: first pixel of a region, in the whole image, per space axis.
            chunk: (z)yx, the axes of a block. The axes before them are those of a stack that is
                labeled plane by plane; they have chunks of 1 and are never made coarser.
            name: letters, digits, '_', '-' and '.'.

        Raises:
            OutputExistsError: something else is there, or an image of another shape, axes, chunk,
                voxel size or name.
            InputError: impossible axes, voxel size or name.
            GeometryError: an impossible chunk.
        """
        from yaozarrs import v05
        from zarr.codecs import ZstdCodec

        path = Path(path)
        spacing = spacing_um(axes, shape, voxel_size_um)
        full = chunk_of(shape, chunk)
        stack = len(shape) - len(chunk)
        steps = [None if i < stack else spacing.get(a, 1.0) for i, a in enumerate(axes)]
        levels = pyramid(shape, full, steps)
        folder = _folder(name)
        common: Any = {"levels": levels, "spacing": spacing, "origin": origin}
        own = multiscale(name, axes, **common)
        whole = multiscale(name, axes, **common, folder=f"{folder}/")
        source = v05.ImageLabel(source=v05.LabelSource(image="../../"))
        continue_store(path)
        continue_group(path, "", v05.Image(multiscales=[whole]))
        continue_group(path, "labels", v05.LabelsGroup(labels=[name]))
        continue_group(path, folder, v05.LabelImage(multiscales=[own], **{"image-label": source}))
        arrays = (
            continue_array(
                path,
                f"{folder}/{number}",
                level.shape,
                chunk=full,
                axes=axes,
                dtype="uint32",
                compressors=[ZstdCodec(level=1)],
            )
            for number, level in enumerate(levels)
        )
        return cls(path, name, tuple(arrays))

    @classmethod
    def open(cls, path: Path | str, name: str = "instances") -> LabelStore:
        """Open one that `create` has made, to write or to read; nothing is removed.

        Raises:
            ImageError: there is none.
        """
        import zarr

        path = Path(path)
        try:
            group = zarr.open_group(path, path=_folder(name), mode="r+")
            datasets: Any = group.attrs["ome"]["multiscales"][0]["datasets"]  # type: ignore[index, call-overload]
            levels = tuple(group[d["path"]] for d in datasets)
        except (OSError, KeyError, TypeError, IndexError) as error:
            raise ImageError(
                f"{path}: has no label image '{name}', expected an OME-Zarr store written by "
                "spoco-zoo predict"
            ) from error
        return cls(path, name, levels)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.levels[0].shape

    @property
    def chunk(self) -> tuple[int, ...]:
        """With 1 for each leading axis of a stack."""
        return self.levels[0].chunks

    def write(self, box: Box, labels: NDArray[np.integer], at: Sequence[int] = ()) -> None:
        """Write the labels of a box of whole chunks; the coarser levels stay as they are.

        Equal labels give equal bytes, so a block may be done again. A chunk appears under its name
        only when it is complete, but a box of several chunks is not written at once: after a kill
        some of them may be there, and the block must be done again.

        Args:
            box: (z)yx, starts on multiples of the chunk and stops there or at the border.
            labels: (z)yx integers from 0 to 2^32 - 1, of the box's shape.
            at: index into the leading axes of a stack.

        Raises:
            GeometryError: a box that cuts a chunk or leaves the image, or labels of another shape.
            ImageError: labels outside the range.
            OSError: the disk is full or cannot be written.
        """
        place = aligned_place(self.shape, self.chunk, box, at)
        if labels.shape != box.shape:
            raise GeometryError(f"Labels of shape {labels.shape} for a box of shape {box.shape}.")
        if labels.min() < 0 or labels.max() >= 2**32:
            raise ImageError(
                f"{self.path}: labels from {labels.min()} to {labels.max()}, expected 0 to "
                "2^32 - 1: relabel them"
            )
        self.levels[0][place] = labels.astype(np.uint32)

    def build_pyramid(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Write the coarser levels from level 0; in memory is what one of their chunks comes from.

        May be stopped at any moment and called again: every chunk is then written anew, with the
        same bytes. progress: called with (chunks done, chunks in all).
        """
        total = sum(1 for level in self.levels[1:] for _ in chunk_places(level.shape, level.chunks))
        done = 0
        for finer, coarser in zip(self.levels, self.levels[1:], strict=False):
            step = [1 if a == b else 2 for a, b in zip(finer.shape, coarser.shape, strict=True)]
            for place in chunk_places(coarser.shape, coarser.chunks):
                source = tuple(
                    slice(p.start * k, p.stop * k) for p, k in zip(place, step, strict=True)
                )
                every = tuple(slice(None, None, k) for k in step)
                coarser[place] = np.asarray(finer[source])[every]
                done += 1
                if progress is not None:
                    progress(done, total)

    def read(
        self, box: Box | None = None, at: Sequence[int] = (), *, level: int = 0
    ) -> NDArray[np.uint32]:
        """Labels of a box (default: all) in the pixels of `level`, at index `at` of a stack."""
        place: Any = (*at, *(() if box is None else box.slices), ...)
        labels: NDArray[np.uint32] = np.asarray(self.levels[level][place])
        return labels


def _folder(name: str) -> str:
    """The group of a label image."""
    good = name.strip(".") and all(c.isascii() and (c.isalnum() or c in "_-.") for c in name)
    if not good:
        raise ImageError(
            f"'{name}' cannot name a label image, expected letters, digits, '_', '-' and '.'"
        )
    return f"labels/{name}"
