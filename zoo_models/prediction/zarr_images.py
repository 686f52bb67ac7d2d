"""Zarr arrays and OME-Zarr images, of Zarr v2 and v3: which array, which axes, how large a voxel.

image.zarr          a multiscale group: its finest resolution, the first of its datasets
├── 0               an array that a group above it lists has the axes that the group names
├── 1
└── labels/nuclei   another multiscale group
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_models.errors import ImageError
from zoo_models.prediction.voxel_size import ome_zarr_voxel_size

_TYPES = {"channel": "c", "time": "t"}


@dataclass(frozen=True, eq=False)
class ZarrImage:
    """A zarr.Array, a letter for each axis where names are known (else ''), and micrometres per
    axis ('z', 'y', 'x')."""

    array: Any
    axes: str
    size_um: dict[str, float] = field(default_factory=dict)


def find_zarr(store: Any, key: str, *, name: str) -> ZarrImage:
    """The array `key` of a store (a folder, or a store of zarr-python), or of a multiscale group
    there the finest resolution. `name` is what errors call it.

    Raises:
        ImageError: there is no array.
        Exception: that of another machine's file system.
    """
    import zarr  # here: most commands read no Zarr

    try:
        node = zarr.open(store, mode="r", path=key)
    except (OSError, KeyError, ValueError) as error:
        if not isinstance(store, Path):
            raise  # it may be the connection
        held = sorted(entry.name for entry in store.iterdir() if entry.is_dir())
        raise no_array(name, held) from error
    if isinstance(node, zarr.Array):
        return _image_above(store, key, node) or ZarrImage(node, _own_names(node))
    scales = _multiscales(node.attrs)
    if not scales:
        raise no_array(name, sorted(node.keys()))
    level = scales[0]["datasets"][0]
    if level["path"] not in node:
        raise ImageError(
            f"{name}: lists an array {level['path']} that is not there, expected a complete "
            "OME-Zarr: copy it again"
        )
    return _image(node[level["path"]], scales[0], level)


def no_array(name: object, held: list[str]) -> ImageError:
    """The error for a place at which no array is found, but `held` near it."""
    names = ", ".join(held[:5]) + (" and more" if len(held) > 5 else "")
    return ImageError(f"{name}: is no array, found {names or 'nothing'} inside: name an array")


def _image(array: Any, scale: dict[str, Any], level: dict[str, Any]) -> ZarrImage:
    axes = scale.get("axes", [])  # OME-Zarr 0.2 and older name none, 0.3 only their names
    letters = "".join(_letter(axis) for axis in axes)
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes]
    lists = [source.get("coordinateTransformations", []) for source in (level, scale)]
    scales = [step["scale"] for steps in lists for step in steps if "scale" in step]
    return ZarrImage(array, letters, ome_zarr_voxel_size(letters, units, scales))


def _letter(axis: str | dict[str, Any]) -> str:
    """Names are free: one that is no letter is read by its type, '?' where that does not help."""
    name = (axis if isinstance(axis, str) else axis["name"]).lower()
    kind = "" if isinstance(axis, str) else axis.get("type", "")
    return name if len(name) == 1 else _TYPES.get(kind, "?")


def _own_names(array: Any) -> str:
    """The names that Zarr v3 keeps for axes, or xarray in Zarr v2, where they are our letters."""
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    letters = [str(name).lower() for name in names]
    return "".join(letters) if set(letters) <= set("tczyx") else ""


def _image_above(store: Any, key: str, array: Any) -> ZarrImage | None:
    """The array as a multiscale group above it tells of it, if it lists it."""
    import zarr

    names = key.split("/") if key else []
    for depth in range(len(names)):
        try:
            group = zarr.open_group(store, mode="r", path="/".join(names[:depth]))
        except (OSError, KeyError, ValueError):
            continue  # a folder that is no group says nothing about axes
        for scale in _multiscales(group.attrs):
            for level in scale["datasets"]:
                if level["path"] == "/".join(names[depth:]):
                    return _image(array, scale, level)
    return None


def _multiscales(attributes: Any) -> list[dict[str, Any]]:
    """OME-Zarr 0.5 keeps them under 'ome', 0.4 and older did not."""
    found: list[dict[str, Any]] = attributes.get("ome", attributes).get("multiscales", [])
    return found
