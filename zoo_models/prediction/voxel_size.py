"""The size of a voxel in micrometres, from the metadata of a TIFF file."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

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


def _micrometres(value: object, unit: str) -> float | None:
    if value is None or unit not in MICROMETRES:
        return None
    try:
        size = float(str(value)) * MICROMETRES[unit]
    except ValueError:
        return None
    return size if math.isfinite(size) and size > 0 else None
