"""What the software that opens a package does with an image: which tiles it cuts, keeps and writes.

Each consumer is a pure function from a declaration and an image size to a `Placement` (tiles) or a
`Refusal` (why there are none). All consumers treat the axes one by one, so a placement is a list of
tiles per axis; along one axis::

    image            0                                      S
                     |--------------------------------------|
    read       |-----------------------|        beyond the image: padding
    answer     |-----------------------|        of the network, read * scale + offset wide
    crop             |<--- kept --->|           in the answer's coordinates
    write            |--------------|           in the output's coordinates; later tiles overwrite
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from zoo_models.errors import GeometryError
from zoo_models.geometry import Box

Padding = Literal["symmetric", "reflect"]
"""Names of numpy's padding modes: "symmetric" repeats the border pixel, "reflect" does not."""


@dataclass(frozen=True)
class DeclaredAxis:
    """One space axis as a package's description has it.

    Attributes:
        minimum, step: the input is minimum + n * step pixels wide; step 0: exactly minimum.
        halo: pixels cropped per side of the output.
        scale, offset: the output is input * scale + offset pixels wide (format 0.5's SizeReference:
            both sides together).

    Raises:
        GeometryError: a value that no description can have.
    """

    minimum: int
    step: int
    halo: int = 0
    scale: float = 1.0
    offset: int = 0

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.step < 0 or self.halo < 0 or self.scale <= 0:
            raise GeometryError(
                f"{self} is no axis of a description: give minimum >= 1, step >= 0, halo >= 0 and "
                "scale > 0."
            )

    def fits(self, size: int) -> bool:
        """Whether an input of `size` pixels is one of the declared sizes."""
        if self.step == 0:
            return size == self.minimum
        return size >= self.minimum and (size - self.minimum) % self.step == 0

    def answer(self, size: int) -> int:
        """Width of the network's answer to an input of `size` pixels, as declared."""
        return math.floor(size * self.scale + self.offset)


@dataclass(frozen=True)
class AxisTile:
    """One tile along one axis: half-open intervals, see the figure above."""

    read: tuple[int, int]
    crop: tuple[int, int]
    write: tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """One tile of the image, all axes together."""

    read: Box
    crop: Box
    write: Box


@dataclass(frozen=True)
class Placement:
    """All tiles of an image, in the order in which the consumer runs them.

    Attributes:
        consumer: who places so.
        image, output: sizes (z)yx of the image and of the output canvas.
        padding: what a tile reads beyond the image.
        axes: the tiles along each axis; a tile of the image is one of each.
    """

    consumer: str
    image: tuple[int, ...]
    output: tuple[int, ...]
    padding: Padding
    axes: tuple[tuple[AxisTile, ...], ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.axes))

    def __iter__(self) -> Iterator[Tile]:
        for parts in itertools.product(*self.axes):
            yield Tile(
                read=_box([p.read for p in parts]),
                crop=_box([p.crop for p in parts]),
                write=_box([p.write for p in parts]),
            )


@dataclass(frozen=True)
class Refusal:
    """The consumer gives no output.

    `how`: "refuses" with a message, "fails" with an error on the way, or "hangs" for ever.
    """

    consumer: str
    how: Literal["refuses", "fails", "hangs"]
    reason: str


def format_fault(axes: Sequence[DeclaredAxis]) -> str:
    """Why the format's own validator loads no package with these axes; empty when it does.

    Source: bioimageio.spec 0.5, ModelDescr, the checks of output axes with a halo.
    """
    for axis in axes:
        smallest = axis.answer(axis.minimum)
        if axis.halo and smallest - 2 * axis.halo < 1:
            return (
                f"the smallest output, {smallest} pixels, is used up by the halo of {axis.halo} "
                "per side"
            )
        if not (axis.halo / axis.scale).is_integer():
            return f"a halo of {axis.halo} is no whole number of input pixels at scale {axis.scale}"
    return ""


def expect_one_size_per_axis(axes: Sequence[DeclaredAxis], sizes: Sequence[int]) -> None:
    """Refuse sizes (of an image or a tile) that cannot belong to the axes.

    Raises:
        GeometryError: another number of sizes than axes, or a size below one pixel.
    """
    if len(axes) != len(sizes) or len(axes) not in (2, 3) or min(sizes) < 1:
        raise GeometryError(
            f"{len(axes)} declared axes and sizes {tuple(sizes)}: give one size of at least 1 "
            "pixel for each axis of yx or zyx."
        )


def _box(intervals: list[tuple[int, int]]) -> Box:
    return Box(tuple(a for a, _ in intervals), tuple(b for _, b in intervals))
