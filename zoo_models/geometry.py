"""How a network with pooling must be tiled so that nobody can see the tiles.

A U-Net with `levels` poolings of `factor` gives the same answer for a shifted image only when the
shift is a multiple of its **period** P = factor ** levels. Every 3-wide valid convolution eats one
pixel per side, so the network answers only for the middle of what it reads; what it loses per side
is its **shrink** c. Tiles join without a seam when three things hold (Rumberger et al., ICCV 2021,
arXiv 2101.05846, section 3):

1. convolutions are valid (nothing invented at tile borders);
2. the part kept of every tile is n * P wide;
3. the part kept of every tile starts on the grid 0, P, 2P, ...

One tile of an input-sized network along one axis, and what is cropped where::

    0                                                              T   tile (T = minimum + n * step)
    |<------------------------- read by consumer ----------------->|
    |  a |<------------ read by the valid network ----------->| a  |   a = crop_before
    |    |     c    |<--- answered by the network --->|   c   |    |   c = shrink
    |    |          | b |<--------- kept -------->| b |       |    |   b = crop_after
    |<------ H ---->    |<-------- n * P -------->|    <---- H --->|   H = halo = a + c + b

and two neighbours, whose kept parts touch on the grid while their tiles overlap by 2H::

    |<--- H --->|<------ kept ------>|<--- H --->|
                         |<--- H --->|<------ kept ------>|<--- H --->|
                                     ^ a multiple of P from the image's origin

Integers only: this module imports nothing but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from zoo_models.errors import GeometryError


@dataclass(frozen=True)
class Box:
    """An axis-aligned region of pixels, half open: start <= pixel < stop, one entry per axis.

    Coordinates may be negative: a tile at the image's border reads beyond it.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise GeometryError(
                f"Box start {self.start} and stop {self.stop} differ in number of axes: "
                "give one start and one stop per axis."
            )

    @classmethod
    def of_shape(cls, shape: Iterable[int]) -> Self:
        """The box of a whole array: from the origin to `shape`."""
        stop = tuple(shape)
        return cls((0,) * len(stop), stop)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """For indexing an array whose origin is this box's coordinate origin."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def shift(self, offset: Sequence[int]) -> Box:
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        """The same region in coordinates that begin at `origin`."""
        return self.shift([-o for o in origin])

    def grow(self, margin: Sequence[int]) -> Box:
        """This box with `margin` pixels more on both sides of each axis (negative: fewer)."""
        return Box(
            tuple(a - m for a, m in zip(self.start, margin, strict=True)),
            tuple(b + m for b, m in zip(self.stop, margin, strict=True)),
        )

    def intersect(self, other: Box) -> Box:
        """The common region; an empty shape where the two do not meet."""
        return Box(
            tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True)),
            tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def contains(self, other: Box) -> bool:
        starts = all(a <= b for a, b in zip(self.start, other.start, strict=True))
        return starts and all(a >= b for a, b in zip(self.stop, other.stop, strict=True))


def _powers(factor: int, number: int) -> list[int]:
    """1, f, f^2, ... : `number` of them."""
    return [int(factor**i) for i in range(number)]


class NetworkAxis(Protocol):
    """Size arithmetic of a network along one axis: what tiling and training ask for.

    `shrink`: pixels per side that are not answered. `radius`: pixels per side that a kept part on
    the grid needs around itself; where nothing is invented at borders the two are one.
    `radius_beyond(n)`: the same for answers up to n pixels beyond the kept part.
    """

    @property
    def period(self) -> int: ...
    @property
    def shrink(self) -> int: ...
    @property
    def radius(self) -> int: ...
    @property
    def halo(self) -> int: ...
    @property
    def crop_before(self) -> int: ...
    @property
    def smallest_input(self) -> int: ...

    def radius_beyond(self, pixels: int) -> int: ...
    def is_valid_input(self, size: int) -> bool: ...


@dataclass(frozen=True)
class ValidUNetAxis:
    """Size arithmetic of a valid-convolution U-Net along one axis.

    A block is `convolutions` valid convolutions of width `kernel`; there is one on each of the
    levels 0..levels on the way down and one on each of 0..levels-1 on the way up. `context` pixels
    per side are lost before the first block (a local normalisation inside the network).
    """

    kernel: int
    convolutions: int
    levels: int
    factor: int
    context: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.kernel < 1 or self.kernel % 2 == 0:
            problems.append(f"kernel {self.kernel} (must be odd: 1, 3, 5, ...)")
        if self.convolutions < 1:
            problems.append(f"convolutions {self.convolutions} (at least 1 per block)")
        if self.levels < 0:
            problems.append(f"levels {self.levels} (0 or more poolings)")
        if self.factor < 1:
            problems.append(f"factor {self.factor} (1 keeps the axis, 2 halves it)")
        if self.context < 0:
            problems.append(f"context {self.context} (0 or more pixels)")
        if problems:
            raise GeometryError("This is no valid-convolution U-Net: " + "; ".join(problems) + ".")

    @property
    def block_loss(self) -> int:
        """Pixels that one block loses in all, at its own resolution: s = (kernel - 1) * n."""
        return (self.kernel - 1) * self.convolutions

    @property
    def period(self) -> int:
        """P = factor ** levels: the network commutes with shifts by multiples of P only."""
        return int(self.factor**self.levels)

    @property
    def shrink(self) -> int:
        """Pixels lost per side, c: 2c = s * (P + 2 (P - 1) / (f - 1)) + 2 * context."""
        down = sum(_powers(self.factor, self.levels + 1))
        up = sum(_powers(self.factor, self.levels))
        return self.block_loss * (down + up) // 2 + self.context

    @property
    def radius(self) -> int:
        """Pixels per side that an answer needs: those that a valid network does not answer."""
        return self.shrink

    def radius_beyond(self, pixels: int) -> int:
        """The radius of what answers up to `pixels` beyond a kept part need, from its border."""
        return self.shrink + pixels

    @property
    def residue(self) -> int:
        """Valid input sizes are those that leave this remainder when divided by the period.

        Before the i-th pooling s * (1 + 1/f + ...) pixels are gone, and the rest must divide by f:
        size - 2 * context = s * (P - 1) / (f - 1)  (mod P).
        """
        gone = self.block_loss * sum(_powers(self.factor, self.levels))
        return (gone + 2 * self.context) % self.period

    @property
    def smallest_input(self) -> int:
        """The smallest valid input size; its output is at least one pixel wide."""
        least = 2 * self.shrink + 1
        return least + (self.residue - least) % self.period

    def is_valid_input(self, size: int) -> bool:
        return size >= self.smallest_input and (size - self.residue) % self.period == 0

    def output_size(self, size: int) -> int:
        """Width of the output for an input of `size` pixels.

        Raises:
            GeometryError: `size` is no valid input size.
        """
        if not self.is_valid_input(size):
            below = size - (size - self.residue) % self.period
            near = [n for n in (below, below + self.period) if n >= self.smallest_input]
            raise GeometryError(
                f"An input of {size} pixels does not fit the network: valid sizes are "
                f"{self.smallest_input} + n * {self.period}; use "
                f"{' or '.join(map(str, near or [self.smallest_input]))}."
            )
        return size - 2 * self.shrink

    @property
    def crop_before(self) -> int:
        """Pixels `a` cropped per side of a tile on the grid (T = n * P) to make it valid.

        2a = -residue (mod P), the smallest that is even. When P is even the residue is too,
        since s is; when P is odd, adding P to an odd number makes it even.
        """
        total = -self.residue % self.period
        return (total if total % 2 == 0 else total + self.period) // 2

    @property
    def halo(self) -> int:
        """H, the smallest multiple of the period that covers crop_before + shrink."""
        return math.ceil((self.crop_before + self.shrink) / self.period) * self.period

    @property
    def crop_after(self) -> int:
        """Pixels `b` cropped per side of the network's output, so that n * P are kept."""
        return self.halo - self.crop_before - self.shrink


@dataclass(frozen=True)
class AxisTiling:
    """What a package declares for one axis, and the two facts that make it exact.

    A tile is minimum + n * step wide; `halo` pixels per side of its output are thrown away.
    Exact in every consumer (bioimageio.core, ilastik, JDLL) only when all of these hold, so other
    values are refused:

    - halo >= shrink: what is kept was computed from real pixels;
    - halo, step are multiples of the period (step also of 2 * period: ilastik re-centres tiles);
    - minimum is a multiple of step (JDLL rounds tiles down to multiples of step);
    - minimum - 2 * halo, the kept part of the smallest tile, is at least 2 * period.
    """

    minimum: int
    step: int
    period: int
    shrink: int
    halo: int

    def __post_init__(self) -> None:
        problems = []
        if self.period < 1 or self.shrink < 0:
            problems.append(f"period {self.period} must be >= 1 and shrink {self.shrink} >= 0")
        elif self.step < 1 or self.step % (2 * self.period):
            problems.append(f"step {self.step} is no multiple of 2 * period {2 * self.period}")
        elif self.minimum % self.step:
            problems.append(f"minimum {self.minimum} is no multiple of step {self.step}")
        if self.period >= 1 and self.halo % self.period:
            problems.append(f"halo {self.halo} is no multiple of the period {self.period}")
        if self.halo < self.shrink:
            problems.append(f"halo {self.halo} is less than the shrink {self.shrink}")
        if self.minimum - 2 * self.halo < 2 * self.period:
            problems.append(
                f"minimum {self.minimum} keeps {self.minimum - 2 * self.halo} pixels after the "
                f"halo, fewer than 2 * period {2 * self.period}"
            )
        if problems:
            raise GeometryError("This axis cannot tile exactly: " + "; ".join(problems) + ".")

    def kept(self, tile: int) -> int:
        """Width of the kept part of a tile.

        Raises:
            GeometryError: `tile` is not minimum + n * step.
        """
        if tile < self.minimum or (tile - self.minimum) % self.step:
            raise GeometryError(
                f"A tile of {tile} pixels is off the grid: use {self.minimum} + n * {self.step}."
            )
        return tile - 2 * self.halo

    def largest_tile(self, limit: int) -> int:
        """The largest tile of at most `limit` pixels, and never less than the minimum."""
        return self.minimum + max(0, limit - self.minimum) // self.step * self.step

    def smallest_tile(self, kept: int) -> int:
        """The smallest tile that keeps at least `kept` pixels."""
        missing = kept + 2 * self.halo - self.minimum
        return self.minimum + max(0, math.ceil(missing / self.step)) * self.step

    def padded(self, size: int) -> int:
        """The image size after padding up to the period grid."""
        return math.ceil(size / self.period) * self.period


@dataclass(frozen=True)
class TileGeometry:
    """The tiling of all space axes, in the order of `names` ("yx" or "zyx")."""

    names: str
    axes: tuple[AxisTiling, ...]

    def __post_init__(self) -> None:
        if self.names not in ("yx", "zyx") or len(self.names) != len(self.axes):
            raise GeometryError(
                f"Axes {self.names!r} with {len(self.axes)} tilings: expected 'yx' with 2 or "
                "'zyx' with 3."
            )

    @classmethod
    def from_network(cls, networks: Sequence[NetworkAxis]) -> TileGeometry:
        """The universal declaration for a U-Net whose output has the input's size."""
        return cls.universal([(n.period, n.radius, n.halo) for n in networks])

    @classmethod
    def universal(cls, axes: Sequence[tuple[int, int, int]]) -> TileGeometry:
        """The declaration that is exact in every consumer for (period, shrink, halo) per axis.

        All space axes get one minimum and one step, although an anisotropic network could do with
        less on some: bioimageio.core tries permutations of the axes when it checks a size, and
        different ranges can silently transpose a volume.
        """
        step = math.lcm(*(2 * period for period, _, _ in axes))
        needed = max(2 * halo + 2 * period for period, _, halo in axes)
        minimum = math.ceil(needed / step) * step
        return cls(
            "zyx"[-len(axes) :],
            tuple(AxisTiling(minimum, step, *axis) for axis in axes),
        )

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def period(self) -> tuple[int, ...]:
        return tuple(a.period for a in self.axes)

    @property
    def shrink(self) -> tuple[int, ...]:
        return tuple(a.shrink for a in self.axes)

    @property
    def halo(self) -> tuple[int, ...]:
        return tuple(a.halo for a in self.axes)

    @property
    def minimum(self) -> tuple[int, ...]:
        return tuple(a.minimum for a in self.axes)

    @property
    def step(self) -> tuple[int, ...]:
        return tuple(a.step for a in self.axes)

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The image shape after padding every axis up to the period grid."""
        return tuple(a.padded(n) for a, n in zip(self.axes, shape, strict=True))
