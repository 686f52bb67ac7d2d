"""Which image, and what of it: the choices of a user, applied to what the file says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo_models.errors import ImageError
from zoo_models.geometry import Box
from zoo_models.prediction.source_arrays import LazyArray


@dataclass(frozen=True)
class Place:
    """All that is needed to open an image, in this process or another: plain values only.

    path: a file, FILE.h5:/DATASET, STORE.zarr[/ARRAY], or an fsspec URL of a Zarr array.
    axes: letters of tczyx for the stored axes, instead of those that the file names; axes of
        length 1 may be left out.
    channel: only this one.
    region: (start, stop) for each of (z)yx, in pixels of the whole image.
    """

    path: str
    axes: str | None = None
    channel: int | None = None
    region: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if self.region is not None:  # lists, where it comes from JSON
            pairs = tuple((int(start), int(stop)) for start, stop in self.region)
            object.__setattr__(self, "region", pairs)


def axes_of(array: LazyArray, place: Place, ndim: int) -> str:
    """A letter of tczyx for each stored axis, '1' for those of length 1 without a name.

    Raises:
        ImageError: not so many, other letters, no y or no x, no pixels.
    """
    given = (place.axes or "").lower()
    names = given or array.axes or ("yx" if len(array.shape) == 2 else "zyx"[-ndim:])
    long = [n != 1 for n in array.shape]
    if len(names) == sum(long) < len(long):  # those of length 1 are left out
        letters = iter(names)
        names = "".join(next(letters) if keep else "1" for keep in long)
    elif len(names) == len(long):
        names = "".join(
            a if a in "tczyx" or keep else "1" for a, keep in zip(names, long, strict=True)
        )
    kept = names.replace("1", "")
    if (
        len(names) != len(array.shape)
        or not set("yx") <= set(kept) <= set("tczyx")
        or len(set(kept)) != len(kept)
    ):
        named = f"and the axes {names}" if given or array.axes else "and axes without names"
        raise ImageError(
            f"{place.path}: has the shape {array.shape} {named}, expected for each axis another "
            "letter of tczyx, y and x among them: name the stored axes with --axes, such as zyx"
        )
    if math.prod(array.shape) == 0:
        raise ImageError(
            f"{place.path}: has no pixels (shape {array.shape}), expected at least one: "
            "export the image again"
        )
    return names


def region_of(place: Place, whole: tuple[int, ...]) -> Box:
    """The stored pixels (z)yx that count as the image, of `whole`.

    Raises:
        ImageError: outside, empty, or other axes.
    """
    if place.region is None:
        return Box.of_shape(whole)
    start, stop = tuple(a for a, _ in place.region), tuple(b for _, b in place.region)
    inside = len(start) == len(whole) and all(
        0 <= a < b <= n for a, b, n in zip(start, stop, whole, strict=True)
    )
    if not inside:
        raise ImageError(
            f"{place.path}: has no region {place.region}, expected start < stop for each of its "
            f"{whole} pixels: name a region inside the image"
        )
    return Box(start, stop)
