"""A network seen along one space axis: what it is shown, what it answers, what changes the answer.

Any network is a black box here: c(z)yx float32 in, channels(z)yx float32 out. Space axes are taken
one by one. The image is long along the axis that is probed and as narrow as the network accepts
along the others, so even a field of hundreds of pixels fits a small budget, in 3D as well::

    other axes ^
               |  +---------------------------------------------------+
         side  |  |  noise, every pixel its own: it encodes position  |
               |  +---------------------------------------------------+
               +---> probed axis                                   length
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from zoo_models.errors import InputError

Array = NDArray[np.float32]
Run = Callable[[Array], Array]
"""A network: c(z)yx in, channels(z)yx out, both float32."""

TOLERANCE = 1e-5
"""Change that counts as one, in standard deviations of the answer."""
STRENGTHS = (10.0, 1e4)
"""Contrasts of the noise that replaces pixels; the image's own contrast is 1."""
FREE_ROOM = 32
"""Unchanged input pixels on either side that end the growth."""


@dataclass(frozen=True)
class ValidSizes:
    """Input sizes that a network takes along one axis: minimum + n * step; step 0: one size."""

    minimum: int
    step: int

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.step < 0:
            raise InputError(
                f"Input sizes {self.minimum} + n * {self.step} are none: expected a minimum of at "
                "least 1 and a step of at least 0."
            )

    def at_least(self, size: int) -> int:
        """The smallest valid size of `size` pixels or more (a fixed size stays what it is)."""
        if self.step == 0:
            return self.minimum
        return self.minimum + max(0, -(-(size - self.minimum) // self.step)) * self.step

    def at_most(self, size: int) -> int:
        """The largest valid size of `size` pixels or fewer, and never less than the minimum."""
        if self.step == 0:
            return self.minimum
        return self.minimum + max(0, (size - self.minimum) // self.step) * self.step


@dataclass(frozen=True)
class Line:
    """A network seen along one space axis.

    Attributes:
        axis: which space axis is probed, 0 for the first.
        sides: input sizes (z)yx; the probed axis' own entry is replaced by a length.
        sizes: lengths that the network takes along the probed axis.
        longest: the largest of them within the budget.
    """

    run: Run
    channels: int
    axis: int
    sides: tuple[int, ...]
    sizes: ValidSizes
    longest: int
    random: np.random.Generator

    def fit(self, length: int) -> int:
        """The smallest valid length of at least `length`, or the longest that is affordable."""
        return min(self.sizes.at_least(length), self.longest)

    def noise(self, length: int) -> Array:
        """An image c(z)yx of standard normal noise, `length` pixels along the probed axis."""
        shape = [self.channels, *self.sides]
        shape[1 + self.axis] = length
        return self.random.standard_normal(shape, dtype=np.float32)

    def part(self, image: Array, start: int, stop: int) -> Array:
        """A view of the pixels start..stop along the probed axis of an image or an answer."""
        return np.moveaxis(np.moveaxis(image, 1 + self.axis, 0)[start:stop], 0, 1 + self.axis)

    def answer(self, image: Array) -> Array:
        """The network's answer, (output pixels along the probed axis, all the rest)."""
        output = np.asarray(self.run(np.ascontiguousarray(image)))
        if output.ndim != image.ndim:
            raise InputError(
                f"The network answers an image of shape {image.shape} with shape {output.shape}: "
                f"expected channels and {image.ndim - 1} space axes."
            )
        return np.moveaxis(output, 1 + self.axis, 0).reshape(output.shape[1 + self.axis], -1)


def deviation(one: Array, other: Array) -> NDArray[np.float64]:
    """The largest difference at each output pixel; infinite where one is not a number."""
    with np.errstate(all="ignore"):
        difference = np.abs(np.subtract(one, other, dtype=np.float64))
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    difference = np.where(equal, 0.0, np.nan_to_num(difference, nan=np.inf))
    return np.asarray(difference.max(axis=1))


@dataclass(frozen=True)
class View:
    """A network's answer to one image, and the means to see what changes it.

    Attributes:
        live: first and last output along the axis that depends on the image at all.
        threshold: change that counts as one, in units of the output.
    """

    line: Line
    image: Array
    answer: Array
    live: tuple[int, int]
    threshold: float

    @property
    def length(self) -> int:
        return int(self.image.shape[1 + self.line.axis])

    def changed(self, start: int, stop: int, strength: float) -> NDArray[np.bool_]:
        """Which outputs change when the pixels start..stop are replaced by noise."""
        image = self.image.copy()
        pixels = self.line.part(image, start, stop)
        pixels[...] = strength * self.line.random.standard_normal(pixels.shape, dtype=np.float32)
        return np.asarray(deviation(self.line.answer(image), self.answer) > self.threshold)

    def reached(self, start: int, stop: int) -> NDArray[np.int_]:
        """The outputs that depend on the pixels start..stop, found with every strength."""
        return np.flatnonzero(np.any([self.changed(start, stop, s) for s in STRENGTHS], axis=0))


def look(line: Line, length: int) -> View:
    """Show the network a new image, the same again, and another one.

    Raises:
        InputError: the answer is not finite, differs between the two identical runs, or does not
            depend on the image.
    """
    image = line.noise(length)
    answer = line.answer(image)
    if not np.isfinite(answer).all():
        raise InputError("The network answers noise with values that are not finite.")
    spread = float((answer - answer.mean(axis=0)).std())
    noise = float(deviation(line.answer(image), answer).max())
    if noise > 100 * TOLERANCE * spread:
        raise InputError(
            f"Two runs on one image differ by {noise:.1e} (the answer's deviation is {spread:.1e}):"
            " expected a deterministic network; switch dropout off."
        )
    threshold = max(TOLERANCE * spread, 4 * noise)
    live = np.flatnonzero(deviation(line.answer(line.noise(length)), answer) > threshold)
    if live.size == 0:
        raise InputError("The network's answer does not depend on the image: there is no field.")
    return View(line, image, answer, (int(live[0]), int(live[-1])), threshold)


@dataclass(frozen=True)
class Field:
    """What a block in the middle changed: bounds of the reach at any phase of a period up to it.

    Attributes:
        block: width of the block, input pixels.
        before, after: see `ProbedAxis`, but for the block as if all of it were its far end.
        room: unchanged live outputs on the scarcer side; 0: the change reached the border.
        wanted: how many there have to be before the growth ends.
    """

    view: View
    scale: Fraction
    block: int
    before: int = 0
    after: int = 0
    room: int = 0
    wanted: int = 1

    @property
    def complete(self) -> bool:
        return self.room > 0

    @property
    def margin(self) -> Fraction:
        return len(self.view.answer) - self.scale * self.view.length

    def place(self, output: int) -> tuple[int, int]:
        """The output pixel's own place in the input: start, stop."""
        start = (output - self.margin / 2) / self.scale
        return math.floor(start), math.ceil(start + 1 / self.scale)

    def middle(self, width: int) -> int:
        """Where `width` input pixels start that lie in the middle of what is answered for."""
        first, last = self.view.live
        start = (self.place(first)[0] + self.place(last)[1] - width) // 2
        return min(max(0, start), self.view.length - width)

    def compared(self, shift: int) -> slice:
        """Outputs of a window moved by `shift` that may be compared with those of window 0.

        They are the outputs that neither window's border can reach if `shift` is a period: a block
        of that width would then reach as far from its own end as the wider one did. Where the field
        is too large for that, the middle eighth of what both windows answer for: the most that
        padding can spare, and all right for a network that pads nothing.
        """
        moved, length = int(shift * self.scale), self.view.length
        first, stop = self.view.live[0], self.view.live[1] + 1 - moved
        before, after = (side + shift - self.block for side in (self.before, self.after))
        if self.complete:
            places = [(o, *self.place(o)) for o in range(first, stop)]
            reach = -(-moved * self.scale.denominator // self.scale.numerator) + after
            inside = [o for o, a, b in places if a >= before and b + reach <= length]
            if inside:
                return slice(inside[0], inside[-1] + 1)
        width = max(0, math.ceil((stop - first) / 8))
        start = (first + stop - width) // 2
        return slice(start, start + width)


def replace_block(view: View, scale: Fraction, block: int) -> Field:
    """Replace a block in the middle and see how far the change goes."""
    field = Field(view, scale, block)
    start = field.middle(block)
    reached = view.reached(start, start + block)
    if not reached.size:
        return field
    near, far = int(reached[0]), int(reached[-1])
    return Field(
        view,
        scale,
        block,
        before=field.place(far)[0] - start,
        after=start + block - field.place(near)[1],
        room=min(near - view.live[0], view.live[1] - far),
        wanted=max(math.ceil(scale * FREE_ROOM), (far - near) // 4),
    )
