"""Embeddings of any size as OME-Zarr 0.5, written block by block where they are asked for.

    embeddings.zarr/        a multiscale image of one level, axes [t] c [z] y x
    +- 0/                   float32 or float16, one file per chunk and embedding dimension

One dimension per file lets viewers load one channel. `spoco-zoo cluster embeddings.zarr` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import GeometryError, ImageError, InputError
from zoo_models.geometry import Box
from zoo_models.prediction.multiscale import (
    Level,
    aligned_place,
    chunk_of,
    continue_array,
    continue_group,
    continue_store,
    multiscale,
    spacing_um,
)

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, eq=False)
class EmbeddingStore:
    """Embeddings on the local disk; can be pickled, so that processes may share the writing.

    Attributes:
        path: the root of the OME-Zarr store.
        array: [t] c [z] y x, c being the embedding dimensions.
        channel: which axis of `array` is c.
    """

    path: Path
    array: zarr.Array[Any]
    channel: int

    @classmethod
    def create(
        cls,
        path: Path | str,
        dim: int,
        shape: Sequence[int],
        axes: str,
        *,
        chunk: Sequence[int],
        dtype: Literal["float32", "float16"] = "float32",
        voxel_size_um: Sequence[float] | None = None,
        origin: Sequence[int] | None = None,
    ) -> EmbeddingStore:
        """Make a store of zeros, or continue one that a stopped run left.

        Call it once, before others open it: what a killed process left half-written is removed.

        Args:
            path: the store, by custom `*.zarr`; folders above it are made.
            dim: embedding dimensions.
            shape: of the whole image, in the order of `axes`.
            axes: 'yx', 'zyx', 'tyx' or 'tzyx', without c.
            chunk: (z)yx, the axes of a block; leading axes of a stack have chunks of 1.
            dtype: float16 halves the size, and keeps about three digits up to 65504.
            voxel_size_um: micrometres per space axis of `axes`.
            origin: first pixel of a region, in the whole image, per space axis.

        Raises:
            OutputExistsError: something else is there, or embeddings of another shape, axes, chunk,
                type or voxel size.
            InputError: impossible axes, dimensions, type or voxel size.
            GeometryError: an impossible chunk.
        """
        from yaozarrs import v05
        from zarr.codecs import BloscCodec

        path = Path(path)
        spacing = spacing_um(axes, shape, voxel_size_um)
        if dim < 1 or dtype not in ("float32", "float16"):
            raise InputError(
                f"{dim} embedding dimensions of type {dtype} cannot be stored, expected 1 or more "
                "of float32 or float16"
            )
        channel = axes.count("t")
        named = _inserted(axes, channel, "c")
        level = Level(_inserted(shape, channel, dim), (1,) * len(named))
        image = multiscale(
            "embeddings", "".join(named), levels=[level], spacing=spacing, origin=origin
        )
        continue_store(path)
        continue_group(path, "", v05.Image(multiscales=[image]))
        array = continue_array(
            path,
            "0",
            level.shape,
            chunk=_inserted(chunk_of(shape, chunk), channel, 1),
            axes="".join(named),
            dtype=dtype,
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")],
        )
        return cls(path, array, channel)

    @classmethod
    def open(cls, path: Path | str) -> EmbeddingStore:
        """Open one that `create` has made; nothing is removed.

        Raises:
            ImageError: there is none.
        """
        import zarr

        path = Path(path)
        try:
            group = zarr.open_group(path, mode="r+")
            axes: Any = group.attrs["ome"]["multiscales"][0]["axes"]  # type: ignore[index, call-overload]
            array: Any = group["0"]
        except (OSError, KeyError, TypeError, IndexError) as error:
            raise ImageError(
                f"{path}: has no embeddings, expected an OME-Zarr store that 'spoco-zoo predict' "
                "has written"
            ) from error
        return cls(path, array, [axis["name"] for axis in axes].index("c"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image, without c."""
        return _without(self.array.shape, self.channel)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Without c; 1 for each leading axis of a stack."""
        return _without(self.array.chunks, self.channel)

    def write(self, box: Box, embeddings: NDArray[np.floating], at: Sequence[int] = ()) -> None:
        """Write the embeddings of a box of whole chunks.

        Equal embeddings give equal bytes, so a block may be done again. A file appears under its
        name only when it is complete, but the files of a box do not appear at once: after a kill
        the block must be done again.

        Args:
            box: (z)yx, starts on multiples of the chunk and stops there or at the border.
            embeddings: c(z)yx, floats of the box's shape.
            at: index into the leading axes of a stack.

        Raises:
            GeometryError: a box that cuts a chunk or leaves the image, embeddings of another shape.
            ImageError: values that are not finite, or too large for float16.
            OSError: the disk is full or cannot be written.
        """
        place = aligned_place(self.shape, self.chunk, box, at)
        wanted = (self.array.shape[self.channel], *box.shape)
        if embeddings.shape != wanted:
            raise GeometryError(
                f"Embeddings of shape {embeddings.shape} for a box of shape {box.shape}, expected "
                f"{wanted}."
            )
        with np.errstate(over="ignore"):  # found below, with a sentence that helps
            stored = embeddings.astype(self.array.dtype)
        if not np.isfinite(stored).all():
            raise ImageError(
                f"{self.path}: embeddings from {embeddings.min()} to {embeddings.max()} cannot be "
                f"stored as {self.array.dtype}, expected finite values within its range: store "
                "float32, or look at the weights"
            )
        # The index of a plane stands before c ('t') or behind it ('z' of a stack): both drop out.
        self.array[_inserted(place, self.channel, slice(None))] = stored


def _inserted(values: Sequence[Any], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index:])


def _without(values: Sequence[int], index: int) -> tuple[int, ...]:
    return (*values[:index], *values[index + 1 :])
