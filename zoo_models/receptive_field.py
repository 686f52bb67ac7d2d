"""Measure how any network looks at space, by probing it: reach, period, scale, whole-image ties.

The network is a black box. Along one axis (the others stay narrow, see `probing`), all pixels
at one position, a slab, are replaced by other noise; where the answer changes, it depends on them::

    image     ~~~~~~~~~~~~~~~~~~~~~~~#~~~~~~~~~~~~~~~~~~~~~~~     # position p, replaced
    changed   ...............xxxxxxxxxxxxxxxxx...............     R(p)
                             ^               ^
                  first, looks `after` to p  last, looks `before` to p
    live      ..|--- outputs that depend on the image at all ---|..

1. **Grow.** A block of 32 pixels in the middle is replaced. It holds every phase of any period up
   to 32, so it reaches at least as far as any single slab. The image is doubled until the change
   ends well before the live outputs do. Nothing beyond the change depends on the block, and so
   nothing in the middle depends on the border or its padding. If the change still touches the end
   of the live outputs in the largest affordable image, the truth is "at least".
2. **Period** on the interior that is free of the border: `equivariance.smallest_period`.
3. **Every phase.** A slab at p, p + 1, ..., p + P - 1. R(p) pairs inputs with outputs; since the
   pairs repeat with the period P these are all pairs there are, and the farthest one is the reach.
   Slabs never share a run: two changes in one image cannot be told apart.

Pooling and ReLU hide dependences, and the outermost pixel of a deep network hardly counts (1e-7 of
the answer's spread is usual): each slab is replaced in two images, with noise of contrast 10
and 10000. The strong one wins every pooling and does not drown in the rounding of float32. What
stays unreached gives equal bits, so a small tolerance is enough.

**Statistics.** Group, instance and layer norms, global pooling, min-max scaling: every pixel
depends on every other, at any distance, alike. A receptive field fades with distance::

    image     #######~~~~~~~~~~~~~~~~~~~~~~~~     # contrast of the first eighth times 30
    change    xxxxxx\\                              a field fades (or ends)
    change    xxxxxx------------------------      a statistic does not

It is called a statistic when the far half of the answer changes evenly in images of two sizes. If
only one is affordable a bottleneck that sees it as a whole looks much alike, so there the far half
must also change about as much as the near end. A weak statistic is then called a field that is
not complete, and neither can be tiled.

What probing cannot see: a dependence that skips more than 32 pixels and more than a quarter of the
change that was seen (a lone dilation of 200), and one below the tolerance at the contrasts named.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from zoo_models.equivariance import smallest_period
from zoo_models.errors import InputError
from zoo_models.probing import TOLERANCE, Field, Line, Run, ValidSizes, look, replace_block

__all__ = ["Probe", "ProbedAxis", "Run", "ValidSizes", "probe"]

LARGEST_PERIOD = 32
"""Input pixels: five poolings by two, three by three."""
IMAGES = 2
"""Images in which every slab is replaced."""
FIRST_LENGTH = 192
"""Pixels that the first image is longer than the smallest valid one."""
SIDE = {2: 24, 3: 8}
"""Pixels across the probed axis beyond the smallest valid size, by number of space axes: every
output pixel there is one more chance that poolings and ReLUs let a change through."""
EDGE_CONTRAST = 30.0
FLAT = 0.6
"""Even: the weakest quarter of the far half changes by this fraction of the strongest, or more."""
NEAR = 0.2
"""With one size only: and by this fraction of the near end. Measured on U-Nets of random weights:
group and instance norms 0.30 or more, fields (five poolings, 64 pixels) 0.08 or less."""


@dataclass(frozen=True)
class ProbedAxis:
    """What was measured along one space axis. Units: input pixels, unless named otherwise.

    An output pixel's own place is the input interval that it covers when the answer is centred on
    the input: pixel o covers (o - margin / 2) / scale to (o + 1 - margin / 2) / scale, widened to
    whole pixels.

    Attributes:
        before, after: pixels on either side of its own place that an output pixel depends on, the
            largest over all phases and channels. Negative: it looks past its own place.
        complete: the field was seen to end. False: it reached the border of the largest affordable
            image, so `before` and `after` are lower bounds.
        period: smallest shift with which the network commutes; None: none up to `LARGEST_PERIOD`.
        scale: output pixels per input pixel.
        margin: output size - scale * input size, in output pixels, both sides together.
        before_at, after_at: `before` and `after` of the output pixels of each phase, entry i for
            pixels n * period * scale + i; the maximum alone if there is no period. A kept part
            that starts on the grid needs less halo than one that starts anywhere.
    """

    before: int
    after: int
    complete: bool
    period: int | None
    scale: Fraction
    margin: Fraction
    before_at: tuple[int, ...]
    after_at: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """What was measured of a network.

    Attributes:
        axes: one entry per space axis.
        statistics: an output pixel depends on the whole input through a statistic, not through a
            receptive field; no period is looked for then.
        shape: the largest input (z)yx that was run for the field, along each axis.
        seconds: wall time.
        tolerance: change that counted as one, in standard deviations of the answer.
    """

    axes: tuple[ProbedAxis, ...]
    statistics: bool
    shape: tuple[int, ...]
    seconds: float
    tolerance: float


def probe(
    run: Run,
    *,
    channels: int,
    sizes: Sequence[ValidSizes],
    budget_pixels: int,
    seed: int = 0,
) -> Probe:
    """Measure reach, period and scale of a network along every space axis.

    Args:
        run: the network, c(z)yx float32 -> channels(z)yx float32; must be deterministic.
        channels: of the input.
        sizes: input sizes that the network takes, one entry per space axis, two or three.
        budget_pixels: pixels of the largest input that may be run.

    Raises:
        InputError: the smallest input exceeds the budget, or the answer does not depend on the
            image, is not finite, or differs between two identical runs.
    """
    started = time.perf_counter()
    random = np.random.default_rng(seed)
    narrow = _narrow_sides(sizes, budget_pixels)
    axes, shape, statistics = [], [], False
    for axis, valid in enumerate(sizes):
        across = math.prod(narrow) // narrow[axis]
        longest = valid.at_most(budget_pixels // across)
        line = Line(run, channels, axis, narrow, valid, longest, random)
        field, statistic = _grow(line, _scale(line))
        axes.append(_probed(field, statistic))
        shape.append(field.view.length)
        statistics |= statistic
    seconds = time.perf_counter() - started
    return Probe(tuple(axes), statistics, tuple(shape), seconds, TOLERANCE)


def _narrow_sides(sizes: Sequence[ValidSizes], budget_pixels: int) -> tuple[int, ...]:
    """Input sizes across the probed axis: small, but with `SIDE` more pixels if affordable."""
    if len(sizes) not in SIDE:
        raise InputError(f"Sizes of {len(sizes)} space axes were given: expected 2 or 3.")
    smallest = tuple(valid.minimum for valid in sizes)
    if math.prod(smallest) > budget_pixels:
        raise InputError(
            f"The smallest input {smallest} has {math.prod(smallest)} pixels, the budget is "
            f"{budget_pixels}: raise the budget."
        )
    wanted = tuple(valid.at_least(valid.minimum + SIDE[len(sizes)]) for valid in sizes)
    return wanted if math.prod(wanted) <= budget_pixels else smallest


def _scale(line: Line) -> Fraction:
    """Output pixels per input pixel: from two sizes, or from how the change follows a slab.

    Raises:
        InputError: the output does not grow with the input.
    """
    large = line.fit(line.sizes.minimum + FIRST_LENGTH)
    small = min(line.fit(line.sizes.minimum + FIRST_LENGTH // 2), line.sizes.at_most(large - 1))
    if large > small:
        outputs = [len(line.answer(line.noise(n))) for n in (small, large)]
        scale = Fraction(outputs[1] - outputs[0], large - small).limit_denominator(16)
        if scale <= 0:
            raise InputError(
                f"Inputs of {small} and {large} pixels give outputs of {outputs[0]} and "
                f"{outputs[1]}: expected an output that grows with the input, an image."
            )
        return scale
    view = look(line, small)
    if len(view.answer) == small:
        return Fraction(1)
    slabs = (3 * small // 8, 5 * small // 8)
    reached = [view.reached(position, position + 1) for position in slabs]
    centres = [float(each.mean()) if each.size else math.nan for each in reached]
    slope = (centres[1] - centres[0]) / max(1, slabs[1] - slabs[0])
    if not slope > 0:
        return Fraction(1)
    return Fraction(round(slope)) if slope >= 1 else Fraction(1, round(1 / slope))


def _grow(line: Line, scale: Fraction) -> tuple[Field, bool]:
    """Double the image until the change in its middle ends well inside the live outputs.

    Returns the field, and whether the dependence is a statistic instead.
    """
    length, flat = line.fit(line.sizes.minimum + FIRST_LENGTH), 0
    while True:
        view = look(line, length)
        field = replace_block(view, scale, min(LARGEST_PERIOD, math.ceil(length / 4)))
        largest = length == line.longest
        if field.room >= field.wanted:
            return field, False
        evenness = 0.0 if field.complete else _evenness(field)
        flat = flat + 1 if evenness else 0
        if flat == 2 or (largest and evenness >= NEAR):
            return field, True
        if largest:
            break
        length = line.fit(2 * length)
    while not field.complete and field.block > 1:  # a narrower block may still end in time
        field = replace_block(view, scale, field.block // 2)
    return field, False


def _evenness(field: Field) -> float:
    """How much the far half of the answer changes, evenly, with the contrast of the first eighth.

    In parts of how much the near end changes; 0 where the far half does not change evenly.
    """
    view, (first, last) = field.view, field.view.live
    edge, half = max(1, view.length // 8), (first + last + 1) // 2
    # the distance has to grow, or a field could not fade: valid networks answer for little
    if field.place(last)[1] - edge < 1.5 * (field.place(half)[0] - edge):
        return 0.0
    image = view.image.copy()
    view.line.part(image, 0, edge)[...] *= EDGE_CONTRAST
    change = np.abs(view.line.answer(image) - view.answer)[first : last + 1].mean(axis=1)
    near = max(view.threshold, float(change[: math.ceil(len(change) / 8)].mean()))
    far = [float(part.mean()) for part in np.array_split(change[half - first :], 4) if part.size]
    even = min(far) > view.threshold and min(far) >= FLAT * max(far)
    return min(far) / near if even else 0.0


def _probed(field: Field, statistics: bool) -> ProbedAxis:
    """Period and reach by phase. A statistic has neither; one slab shows "at least"."""
    view, period, block = field.view, None, 1
    if not statistics:
        period = smallest_period(field, LARGEST_PERIOD)
        block = period or field.block
    phases = int(period * field.scale) if period else 1
    before, after = dict[int, int](), dict[int, int]()
    complete = field.complete and not statistics
    for position, reached in _slabs(field, block):
        complete = complete and view.live[0] < reached[0] and reached[-1] < view.live[1]
        for output in map(int, reached):
            (start, stop), phase = field.place(output), output % phases
            before[phase] = max(before.get(phase, start - position), start - position)
            after[phase] = max(after.get(phase, position + 1 - stop), position + 1 - stop)
    return ProbedAxis(
        before=max(before.values(), default=0),
        after=max(after.values(), default=0),
        complete=bool(complete),
        period=period,
        scale=field.scale,
        margin=field.margin,
        before_at=tuple(before.get(phase, 0) for phase in range(phases)),
        after_at=tuple(after.get(phase, 0) for phase in range(phases)),
    )


def _slabs(field: Field, number: int) -> Iterator[tuple[int, NDArray[np.int_]]]:
    """Outputs reached by slabs at `number` neighbouring positions, in every image."""
    first = field.middle(number)
    views = [field.view, *(look(field.view.line, field.view.length) for _ in range(IMAGES - 1))]
    for position in range(first, first + number):
        for view in views:
            reached = view.reached(position, position + 1)
            if reached.size:
                yield position, reached
