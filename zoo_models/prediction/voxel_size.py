"""The size of a voxel in micrometres, from the metadata of TIFF files and OME-Zarr images."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence

MICROMETRES = {
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,  # micro sign; ElementTree and ImageJ give either of the two letters
    "μm": 1.0,  # Greek mu
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "picometer": 1e-6,  # OME-Zarr writes the names out
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}


def ome_voxel_size(ome_xml: str) -> dict[str, float]:
    """Axis (z, y, x) -> micrometres, for the axes whose PhysicalSize the OME-XML tells.

    Units are those of OME 2016-06, default µm. Units that are no length ("pixel") are left out.
    """
    try:
        root = ElementTree.fromstring(ome_xml)
    except ElementTree.ParseError:
        return {}  # the pixels are read without it, so only the voxel size is unknown
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return {}
    sizes = {
        axis: _micrometres(
            pixels.get(f"PhysicalSize{axis.upper()}"),
            pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm"),
        )
        for axis in "zyx"
    }
    return {axis: size for axis, size in sizes.items() if size is not None}


def imagej_voxel_size(
    metadata: Mapping[str, object],
    x_resolution: tuple[int, int] | None,
    y_resolution: tuple[int, int] | None,
) -> dict[str, float]:
    """Axis (z, y, x) -> micrometres from ImageJ's tags.

    Args:
        metadata: ImageJ's description; `unit` of length, `spacing` of the planes in that unit.
        x_resolution: pixels per unit as (numerator, denominator).
        y_resolution: the same along y.
    """
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    values = {"z": metadata.get("spacing"), "y": None, "x": None}
    for axis, resolution in (("y", y_resolution), ("x", x_resolution)):
        if resolution is not None and resolution[0] > 0:
            values[axis] = resolution[1] / resolution[0]
    sizes = {axis: _micrometres(value, unit) for axis, value in values.items()}
    return {axis: size for axis, size in sizes.items() if size is not None}


def ome_zarr_voxel_size(
    axes: str, units: Sequence[str | None], scales: Iterable[Sequence[float]]
) -> dict[str, float]:
    """Axis (z, y, x) -> micrometres from the scales of an OME-Zarr image (0.4, 0.5).

    Args:
        axes: a letter for each axis.
        units: the unit of each axis; an axis without one has no size in micrometres.
        scales: one factor per axis each: that of the resolution, and that of all resolutions.
    """
    factors = [1.0] * len(axes)
    told = False
    for scale in scales:
        if len(scale) != len(axes):
            return {}
        factors = [f * s for f, s in zip(factors, scale, strict=True)]
        told = True
    sizes = {
        axis: _micrometres(factor, unit or "")
        for axis, factor, unit in zip(axes, factors, units, strict=True)
        if axis in "zyx" and told
    }
    return {axis: size for axis, size in sizes.items() if size is not None}


def _micrometres(value: object, unit: str) -> float | None:
    if value is None or unit not in MICROMETRES:
        return None
    try:
        size = float(str(value)) * MICROMETRES[unit]
    except ValueError:
        return None
    return size if math.isfinite(size) and size > 0 else None
