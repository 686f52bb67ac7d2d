"""TIFF, BigTIFF and OME-TIFF without reading them whole: the full resolution of the one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from zoo_models.errors import ImageError
from zoo_models.prediction.decoding import (
    damaged,
    expect_all_pixels,
    expect_file,
    named_axes,
    only_series,
    tiff_sizes_um,
    tifffile_messages,
)
from zoo_models.prediction.source_arrays import LazyArray, file_identity
from zoo_models.prediction.tiff_planes import planes_of


def open_tiff(path: Path) -> LazyArray:
    """The one image of a TIFF file, with the axes that `decode` would give it.

    Raises:
        ImageError: no such file, several images, damaged or truncated.
    """
    expect_file(path)
    try:
        with tifffile_messages() as messages:
            tiff = tifffile.TiffFile(path)
            try:
                series, size_um = only_series(path, tiff), tiff_sizes_um(tiff)
                expect_all_pixels(messages)
                files = _complete_files(series, path)
                planes = planes_of(series, path.absolute())
            except BaseException:
                tiff.close()
                raise
    except ImageError:
        raise
    except Exception as error:  # tifffile raises many classes, on any damage
        raise damaged(path, error) from error

    def close() -> None:
        planes.close()
        tiff.close()

    axes, colour = named_axes(series.shape, series.axes)
    return LazyArray(
        shape=series.shape,
        dtype=np.dtype(series.dtype),
        axes=axes,
        chunk=planes.chunk,
        read=planes.read,
        identity=lambda: [line for file in files for line in file_identity(file)],
        size_um=size_um,
        colour=colour,
        close=close,
    )


def _complete_files(series: Any, path: Path) -> list[Path]:
    """The files of a series, of which each holds what its pages say: tifffile reads zeros for what
    is missing.

    Raises:
        ValueError: a page is missing, a file is truncated.
    """
    ends = {path.absolute(): 0}
    if series.dataoffset is not None:
        ends[path.absolute()] = series.dataoffset + series.nbytes
    else:
        for number, page in enumerate(series):
            if page is None:
                raise ValueError(f"page {number} is missing")
            file = Path(page.parent.filehandle.path)
            parts = zip(page.dataoffsets, page.databytecounts, strict=True)
            ends[file] = max([ends.get(file, 0), *(start + count for start, count in parts)])
    for file, end in ends.items():
        if file.stat().st_size < end:
            raise ValueError(f"truncated: {file.stat().st_size} bytes, {end} are needed")
    return sorted(ends)
