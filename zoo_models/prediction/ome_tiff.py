"""OME-TIFF files whose bytes depend on their pixels alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

CLASSIC_TIFF_BYTES = 2**32 - 2**25
"""Above this, the 32-bit offsets of a classic TIFF may not suffice."""


def write_ome_tiff(
    path: Path, pixels: NDArray[Any], axes: str, voxel_size_um: Sequence[float] | None = None
) -> None:
    """Write pixels (...) with axes such as 'czyx'; the sizes are those of the last axes.

    Integers are compressed without loss; floats hardly get smaller. The UUID, which OME-XML asks
    for, is made of the content, not of time and machine: the same image gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    names, sizes = axes.upper(), voxel_size_um or ()
    metadata: dict[str, Any] = {"axes": names}
    for axis, size in zip(names[len(names) - len(sizes) :], sizes, strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    content = sha256(f"{metadata} {pixels.dtype.str} {pixels.shape}".encode())
    content.update(np.ascontiguousarray(pixels).data)
    metadata["UUID"] = uuid.uuid5(uuid.NAMESPACE_OID, content.hexdigest()).urn
    tifffile.imwrite(
        path,
        pixels,
        ome=True,
        bigtiff=pixels.nbytes > CLASSIC_TIFF_BYTES,
        photometric="minisblack",
        compression="zlib" if pixels.dtype.kind in "iu" else None,
        metadata=metadata,
    )
