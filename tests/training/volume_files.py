"""Small volumes in HDF5 and OME-Zarr, for the tests beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import zarr


def write_hdf5(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key.replace("__", "/")] = array


def write_ome_zarr(path: Path, array: np.ndarray, axes: str, *, version: str) -> None:
    """A multiscale image of two resolutions, metadata where the version wants it."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group["s0"] = array
    group["s1"] = array[..., ::2]
    named: list[Any] = [a if version == "0.3" else {"name": a, "type": "space"} for a in axes]
    scales = [{"axes": named, "datasets": [{"path": "s0"}, {"path": "s1"}]}]
    inner: dict[str, Any] = {"version": version, "multiscales": scales}
    group.attrs.update({"ome": inner} if version == "0.5" else inner)
