"""What a network really does, by running it: sizes, reach, period, blank rims, statistics.

Along one axis, for a tile of T input pixels on the period grid and its answer::

    tile      |---------------------------- T -----------------------------|
    answer    |.....~~~~~~|=====================================|~~~~~~.....|
              blank        answered from pixels of the tile alone
              |<- before ->|                                     |<- after ->|     the halo it needs

Blank is what does not depend on the image at all (a valid network put back into a rim of zeros).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from packager.audit.runners import NetworkStops, Seen
from packager.certify import position_rich
from zoo_models.errors import InputError
from zoo_models.receptive_field import Probe, ProbedAxis, ValidSizes, probe

Array = NDArray[np.float32]

SAME = 1e-3
"""Two answers agree up to this many standard deviations: float32 sums in another order."""


@dataclass(frozen=True)
class MeasuredAxis:
    """One space axis of one output as measured.

    Attributes:
        name: id of the output's axis.
        before, after: halo that the answer needs per side, in output pixels; at least 0. Lower
            bounds where `complete` is false.
        reach: pixels that an output pixel looks at, per side, in input pixels.
        blank: output pixels per side that do not depend on the image.
        period: smallest shift with which the network commutes; None: none was found.
        scale, margin: the answer is scale * input + margin pixels wide.
        field: the probe's own entry; None when an in-graph statistic or a crash hid the field.
    """

    name: str
    before: int
    after: int
    complete: bool
    reach: tuple[int, int]
    blank: tuple[int, int]
    period: int | None
    scale: Fraction
    margin: Fraction
    field: ProbedAxis

    def right(self, tile: int) -> NDArray[np.bool_]:
        """Which pixels of the answer to a tile on the period grid need nothing beyond the tile."""
        size = math.floor(tile * self.scale + self.margin)
        place = np.arange(size)
        start = np.floor((place - float(self.margin) / 2) / float(self.scale))
        stop = np.ceil((place + 1 - float(self.margin) / 2) / float(self.scale))
        before = np.resize(self.field.before_at, size)
        after = np.resize(self.field.after_at, size)
        inside = (start - before >= 0) & (stop + after <= tile)
        return np.asarray(inside & (place >= self.blank[0]) & (place < size - self.blank[1]))


@dataclass(frozen=True)
class Measurement:
    """All that was measured from the image input to one output.

    Attributes:
        output: its id.
        axes: in the image's order; empty when nothing could be measured, `problem` says why.
        statistics: the answer depends on the whole tile through a statistic.
        sizes: input sizes that were run and the network took, with what it answered.
        channels: of the answer.
        stops: declared input sizes that it did not take, with its words.
        valid: the sizes that were probed, one entry per axis.
        repeats: largest difference of two runs on one image, in standard deviations.
        batch: the same for an image alone and beside another one; None: it takes one image only.
    """

    output: str
    axes: tuple[MeasuredAxis, ...] = ()
    statistics: bool = False
    sizes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    channels: int = 0
    stops: tuple[tuple[tuple[int, ...], str], ...] = ()
    valid: tuple[ValidSizes, ...] = ()
    repeats: float = 0.0
    batch: float | None = None
    problem: str = ""


def measure(seen: Seen, *, budget_pixels: int) -> Measurement:
    """Run and probe the network. Its faults are values of the measurement, never exceptions."""
    trial = _Trial(seen, budget_pixels)
    valid = trial.find_sizes()
    name = seen.output.id
    stops, sizes = tuple(trial.stops), tuple(trial.sizes)
    if valid is None:
        reason = "; ".join(words for _, words in trial.stops) or "no declared size is affordable"
        return Measurement(name, sizes=sizes, stops=stops, problem=reason)
    image = _noise(seen, tuple(v.minimum for v in valid))
    repeats, batch = _repeats(seen, image), _batch(seen, image)
    channels = len(seen(image))
    found: Probe | None = None
    problem = ""
    if repeats > SAME:
        problem = f"two runs on one image differ by {repeats:.2g} standard deviations"
    else:
        try:
            found = _probe(seen, valid, budget_pixels)
        except (InputError, NetworkStops) as error:
            problem = str(error).rstrip(".")
    axes = () if found is None else _axes(seen, found, valid)
    statistics = found is not None and found.statistics
    return Measurement(
        name, axes, statistics, sizes, channels, stops, valid, repeats, batch, problem
    )


def _probe(seen: Seen, valid: Sequence[ValidSizes], budget_pixels: int) -> Probe:
    channels = seen.model.image.channels
    return probe(seen, channels=channels, sizes=valid, budget_pixels=budget_pixels)


class _Trial:
    """Looks for input sizes that the network takes, and remembers what happened at each."""

    def __init__(self, seen: Seen, budget_pixels: int) -> None:
        self.seen, self.budget = seen, budget_pixels
        self.sizes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.stops: list[tuple[tuple[int, ...], str]] = []

    def find_sizes(self) -> tuple[ValidSizes, ...] | None:
        """The declared sizes, if the first three are taken; else some around the test tensor's."""
        space = self.seen.model.image.space
        declared = tuple(ValidSizes(a.minimum, a.step) for a in space)
        if self._takes(declared):
            return declared
        self.stops = self.stops[:]
        tensor = self.seen.model.image
        held = self.seen.held[tensor.id].shape
        given = [held[tensor.axes.index(a)] for a in space]
        told = len(self.stops)
        for factor in (1, 2, 4, 8, 16):
            sizes = tuple(ValidSizes(n, a.step * factor) for n, a in zip(given, space, strict=True))
            if self._takes(sizes):
                del self.stops[told:]  # these sizes were guessed, not declared
                return sizes
        fixed = tuple(ValidSizes(n, 0) for n in given)
        taken = self._takes(fixed)
        del self.stops[told:]
        return fixed if taken else None

    def _takes(self, valid: Sequence[ValidSizes]) -> bool:
        steps = range(3) if any(v.step for v in valid) else range(1)
        taken = []
        for n in steps:
            size = tuple(v.minimum + n * v.step for v in valid)
            if math.prod(size) > self.budget:
                break
            taken.append(self._run(size))
        return bool(taken) and all(taken)

    def _run(self, size: tuple[int, ...]) -> bool:
        try:
            answer = self.seen(_noise(self.seen, size))
        except NetworkStops as error:
            self.stops.append((size, str(error)))
            return False
        self.sizes.append((size, answer.shape[1:]))
        return True


def _noise(seen: Seen, size: Sequence[int], seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    shape = (seen.model.image.channels, *size)
    return random.standard_normal(shape, dtype=np.float32)


def raw_image(seen: Seen, raw: Array, size: Sequence[int]) -> Array:
    """A position-rich image c(z)yx with the mean and spread of the raw test tensor."""
    image = position_rich(size, channels=seen.model.image.channels)
    spread = float(raw.std()) or 1.0
    scaled = (image - image.mean()) / image.std() * spread + raw.mean()
    return np.asarray(scaled, np.float32)


def _relative(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return math.inf
    spread = float(np.nanstd(other)) or 1.0
    gap = float(np.abs(one - other).max()) / spread
    return gap if math.isfinite(gap) else math.inf


def _repeats(seen: Seen, image: Array) -> float:
    return _relative(seen(image), seen(image))


def _batch(seen: Seen, image: Array) -> float | None:
    """How much an image's answer changes when another one is in its batch."""
    if not any(a.kind == "batch" for a in seen.model.image.axes):
        return None
    other = 3 * _noise(seen, image.shape[1:], seed=1) + 1
    try:
        together = seen.batch([image, other])
        return _relative(together[0], seen(image)) if len(together) == 2 else None
    except NetworkStops:
        return None


def _axes(seen: Seen, found: Probe, valid: Sequence[ValidSizes]) -> tuple[MeasuredAxis, ...]:
    from packager.audit.runners import match

    blanks = _blanks(seen, valid)
    image = seen.model.image
    return tuple(
        _axis(match(seen.output, axis, image).id, field, blank, sizes)
        for axis, field, blank, sizes in zip(image.space, found.axes, blanks, valid, strict=True)
    )


def _axis(name: str, field: ProbedAxis, blank: tuple[int, int], valid: ValidSizes) -> MeasuredAxis:
    reach = (max(0, field.before), max(0, field.after))
    axis = MeasuredAxis(
        name, 0, 0, field.complete, reach, blank, field.period, field.scale, field.margin, field
    )
    width = sum(reach) + math.ceil(sum(blank) / field.scale) + 4 * (field.period or 1)
    before, after = 0, 0
    for n in range(4 if valid.step else 1):
        tile = valid.at_least(width + math.ceil(abs(field.margin) / field.scale)) + n * valid.step
        right = np.flatnonzero(axis.right(tile))
        size = math.floor(tile * field.scale + field.margin)
        if right.size == 0:  # the tile is too small to have a middle
            before, after = max(before, size), max(after, size)
            continue
        before, after = max(before, int(right[0])), max(after, size - 1 - int(right[-1]))
    return MeasuredAxis(
        name,
        before,
        after,
        field.complete,
        reach,
        blank,
        field.period,
        field.scale,
        field.margin,
        field,
    )


def _blanks(seen: Seen, valid: Sequence[ValidSizes]) -> list[tuple[int, int]]:
    """Output pixels per axis and side that are equal for two images; the most over three sizes."""
    steps = range(3) if any(v.step for v in valid) else range(1)
    found = [(0, 0)] * len(valid)
    for n in steps:
        size = [v.minimum + n * v.step for v in valid]
        moved = _difference(seen, size)
        for axis in range(len(valid)):
            others = tuple(a for a in range(moved.ndim) if a != axis)
            live = np.flatnonzero(moved.any(axis=others))
            if live.size:
                blank = (int(live[0]), moved.shape[axis] - 1 - int(live[-1]))
                found[axis] = (max(found[axis][0], blank[0]), max(found[axis][1], blank[1]))
    return found


def _difference(seen: Seen, size: Sequence[int]) -> NDArray[np.bool_]:
    """(z)yx: where the answers to any two of three images differ."""
    first = seen(_noise(seen, size))
    others: list[Callable[[], Array]] = [lambda: 30 * _noise(seen, size, 1)]
    others.append(lambda: -_noise(seen, size, 2))
    return np.asarray(np.any([(seen(make()) != first).any(axis=0) for make in others], axis=0))
