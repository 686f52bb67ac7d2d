"""Consumer by consumer: what will happen to an image of a given size.

The truth is one pass over the image, mirrored outward as the consumer does, or where the network
takes one size only, tiles of that size placed as they should be::

    image      0 ------------------------------- S
    read    r  |                                            r: on the period grid
            |--------------------- T ------------------|
               |---- kept: needs nothing beyond ----|       a multiple of P, from the origin on

Where the image is affordable, the consumer's tiles are really run and compared with that. Where it
is not, a pixel counts as right when its tile starts on the period grid, lies where it belongs, and
holds everything that the pixel depends on; then the number of wrong pixels is known, but not how
wrong they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from packager.audit.declared import cannot_load
from packager.audit.measure import SAME, Measurement, raw_image
from packager.audit.runners import NetworkStops, Seen
from packager.audit.tiles import gap_to, right_along, true_tiles
from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Placement, Refusal
from packager.consumers.stitch import stitch

Array = NDArray[np.float32]
Outcome = Literal["exact", "wrong", "refuses", "hangs", "fails", "unknown"]

CORE_WHOLE = f"{core.NAME}, one pass"
SMALL_N = 1


@dataclass(frozen=True)
class Verdict:
    """What one consumer makes of one image size.

    Attributes:
        consumer, output, size: size is the image's (z)yx.
        outcome: "unknown": neither run nor derived.
        tiles: how many; 0 without a placement.
        wrong: part of the output pixels that are wrong.
        sigma: largest difference, in standard deviations of the truth; None: not measured.
        how: "run", "derived" or "declared" (the placement alone decides).
        grid: per axis, sizes that are multiples of it would be exact; empty: none was found.
        sentence: what happens, in words.
    """

    consumer: str
    output: str
    size: tuple[int, ...]
    outcome: Outcome
    tiles: int
    wrong: float
    sigma: float | None
    how: Literal["run", "derived", "declared"]
    grid: tuple[int, ...]
    sentence: str


@dataclass(frozen=True)
class Seam:
    """|whole - tiled| of one consumer, the largest over the channels, in standard deviations."""

    consumer: str
    output: str
    size: tuple[int, ...]
    difference: Array


@dataclass(frozen=True)
class Subject:
    """One output, ready to be judged.

    Attributes:
        process: the declared pre-processing; `tile_statistics`: it depends on what it is given.
        raw: the raw test tensor of the image input.
        budget_pixels: input pixels that all tiles of one image together may have.
    """

    seen: Seen
    measured: Measurement
    declared: tuple[DeclaredAxis, ...]
    process: Callable[[Array], Array]
    tile_statistics: bool
    raw: Array
    budget_pixels: int


def default_sizes(subject: Subject) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """One image size on the grid and one off it, small enough to be run."""
    several = {2: 256, 3: 48}[len(subject.declared)]
    on, off = [], []
    for number, axis in enumerate(subject.declared):
        measured = subject.measured.axes
        period = (measured[number].period if measured else 1) or 1
        unit = math.lcm(axis.step or 1, 2 * period)
        size = max(several, axis.minimum + axis.step)
        on.append(math.ceil(size / unit) * unit)
        off.append(on[-1] + 3 + 16 * (number % 2))
    return tuple(on), tuple(off)


def judge(subject: Subject, size: tuple[int, ...]) -> tuple[list[Verdict], list[Seam]]:
    """All consumers on one image size."""
    verdicts, seams = [], []
    loads = cannot_load(subject.seen.model)
    truths: dict[str, Array | None] = {}
    for consumer in (core.NAME, CORE_WHOLE, ilastik.NAME, jdll.NAME):
        if consumer in loads:
            verdicts.append(_told(subject, consumer, size, "refuses", loads[consumer]))
            continue
        placed, note = _place(subject, consumer, size)
        if isinstance(placed, Refusal):
            verdicts.append(_told(subject, consumer, size, placed.how, placed.reason))
            continue
        verdict, seam = _judge_placement(subject, placed, consumer, truths)
        if note:
            verdict = replace(verdict, sentence=f"{verdict.sentence} {note}")
        verdicts.append(verdict)
        seams += [seam] if seam is not None else []
    return verdicts, seams


def _told(
    subject: Subject, consumer: str, size: tuple[int, ...], outcome: Outcome, reason: str
) -> Verdict:
    output = subject.measured.output
    return Verdict(consumer, output, size, outcome, 0, 0.0, None, "declared", (), reason)


def _place(subject: Subject, consumer: str, size: Sequence[int]) -> tuple[Placement | Refusal, str]:
    """The consumer's tiles with its own defaults, and what has to be said beside them."""
    axes, model = subject.declared, subject.seen.model
    channels = (model.image.channels, subject.seen.output.channels)
    if consumer == ilastik.NAME:
        return ilastik.place(axes, size, channels=max(channels)), ""
    if consumer == jdll.NAME:
        placed = jdll.place(axes, size, channels=channels[0], output_channels=channels[1])
        return placed, ""
    gate = core.accepts(axes, size)
    note = f"Files and arrays of this size: {gate.reason}" if gate is not None else ""
    if consumer == CORE_WHOLE:
        return core.place_whole(axes, size), note
    placed = core.place(axes, size)
    if isinstance(placed, Refusal) and "smaller" in placed.reason:
        smaller = core.place(axes, size, n=SMALL_N)
        if isinstance(smaller, Placement):
            return smaller, f"With n = {SMALL_N}; the default of {core.DEFAULT_N} refuses. {note}"
    return placed, note


def _judge_placement(
    subject: Subject, placed: Placement, consumer: str, truths: dict[str, Array | None]
) -> tuple[Verdict, Seam | None]:
    per_tile = consumer in (ilastik.NAME, CORE_WHOLE)
    pixels = sum(t.read.size for t in placed) if len(placed) < 10_000 else math.inf
    if pixels <= subject.budget_pixels:
        if placed.padding not in truths:
            truths[placed.padding] = _truth(subject, placed)
        truth = truths[placed.padding]
        if truth is not None:
            return _run(subject, placed, consumer, truth=truth, per_tile=per_tile)
    return _derived(subject, placed, consumer, per_tile=per_tile), None


def _truth(subject: Subject, placed: Placement) -> Array | None:
    """The answer that no tile can be seen in; None where it is not affordable."""
    reference = _reference(subject, placed)
    if reference is None:
        return None
    if sum(t.read.size for t in reference) > subject.budget_pixels:
        return None
    image = subject.process(raw_image(subject.seen, subject.raw, placed.image))
    try:
        stitched = stitch(subject.seen, image, reference)
    except NetworkStops:
        return None
    whole = stitched.output
    return None if stitched.failed or np.isnan(whole).any() else whole


def _reference(subject: Subject, placed: Placement) -> Placement | None:
    axes = []
    measured = subject.measured
    for size, axis, valid in zip(placed.image, measured.axes, measured.valid, strict=True):
        parts = true_tiles(size, axis, valid, whole_only=measured.statistics)
        if parts is None:
            return None
        axes.append(parts)
    output = tuple(
        math.floor(s * a.scale) for s, a in zip(placed.image, measured.axes, strict=True)
    )
    return Placement("whole", placed.image, output, placed.padding, tuple(axes))


def _run(
    subject: Subject, placed: Placement, consumer: str, *, truth: Array, per_tile: bool
) -> tuple[Verdict, Seam | None]:
    raw = raw_image(subject.seen, subject.raw, placed.image)
    network, process = subject.seen, subject.process
    try:
        if per_tile and subject.tile_statistics:
            stitched = stitch(lambda tile: network(process(tile)), raw, placed)
        else:
            stitched = stitch(network, process(raw), placed)
    except NetworkStops as error:
        reason = f"The network does not take a tile: {str(error).rstrip(chr(46))}."
        return _told(subject, consumer, placed.image, "fails", reason), None
    output = subject.measured.output
    if stitched.failed:
        reason = f"{len(stitched.failed)} of {len(placed)} tiles are not as wide as expected."
        return _told(subject, consumer, placed.image, "fails", reason), None
    gap = gap_to(stitched.output, truth)
    wrong, sigma = float((gap > SAME).mean()), float(gap.max())
    seam = Seam(consumer, output, placed.image, gap)
    outcome: Outcome = "wrong" if wrong else "exact"
    grid = _grid(subject, placed.image, consumer) if wrong else ()
    sentence = _sentence(placed, wrong, sigma, grid, "measured")
    verdict = Verdict(
        consumer, output, placed.image, outcome, len(placed), wrong, sigma, "run", grid, sentence
    )
    return verdict, seam


def _derived(subject: Subject, placed: Placement, consumer: str, *, per_tile: bool) -> Verdict:
    output, size = subject.measured.output, placed.image
    if (subject.measured.statistics and len(placed) > 1) or (per_tile and subject.tile_statistics):
        sentence = "Every tile has its own statistics: seams everywhere. Derived, not run."
        return Verdict(
            consumer, output, size, "wrong", len(placed), 1.0, None, "derived", (), sentence
        )
    if not subject.measured.axes or subject.measured.statistics:
        sentence = "Nothing was measured that this could be derived from."
        return Verdict(
            consumer, output, size, "unknown", len(placed), 0.0, None, "derived", (), sentence
        )
    wrong = _wrong(subject, placed)
    outcome: Outcome = "wrong" if wrong else "exact"
    open_ = not all(a.complete for a in subject.measured.axes)
    if not wrong and open_:
        outcome = "unknown"
    grid = _grid(subject, size, consumer) if wrong else ()
    sentence = _sentence(placed, wrong, None, grid, "derived from placement and field")
    if open_:
        sentence += " The field was not seen to end: there may be more."
    return Verdict(
        consumer, output, size, outcome, len(placed), wrong, None, "derived", grid, sentence
    )


def _wrong(subject: Subject, placed: Placement) -> float:
    """Part of the output pixels that cannot be right."""
    right = 1.0
    for tiles, size, axis, canvas in zip(
        placed.axes, placed.image, subject.measured.axes, placed.output, strict=True
    ):
        right *= float(right_along(tiles, size, axis, canvas).mean())
    return 1 - right


def _grid(subject: Subject, size: Sequence[int], consumer: str) -> tuple[int, ...]:
    """The finest of P, 2P, 4P and the step per axis on which the next four sizes are exact."""
    if subject.measured.statistics or (subject.tile_statistics and consumer == ilastik.NAME):
        return ()
    periods = [a.period or 1 for a in subject.measured.axes]
    grids = [tuple(k * p for p in periods) for k in (1, 2, 4)]
    grids.append(
        tuple(math.lcm(p, d.step or 1) for p, d in zip(periods, subject.declared, strict=True))
    )
    for grid in grids:
        sizes = [
            tuple((math.ceil(s / g) + k) * g for s, g in zip(size, grid, strict=True))
            for k in range(4)
        ]
        placed = [_place(subject, consumer, s)[0] for s in sizes]
        if all(isinstance(p, Placement) and not _wrong(subject, p) for p in placed):
            return grid
    return ()


def _sentence(
    placed: Placement, wrong: float, sigma: float | None, grid: Sequence[int], how: str
) -> str:
    tiles = "1 tile" if len(placed) == 1 else f"{len(placed)} tiles"
    if not wrong:
        told = f" (at most {sigma:.1e} sigma)" if sigma is not None else ""
        return f"{tiles}, all pixels right{told}; {how}."
    by = f" by up to {sigma:.2g} sigma" if sigma is not None else ""
    count = round(wrong * math.prod(placed.output))
    text = f"{tiles}, {count} pixels ({100 * wrong:.3g} %) wrong{by}; {how}."
    if grid:
        padded = [math.ceil(s / g) * g for s, g in zip(placed.image, grid, strict=True)]
        text += (
            f" Exact on multiples of {' x '.join(map(str, grid))}: pad the image to "
            f"{' x '.join(map(str, padded))}."
        )
    return text
