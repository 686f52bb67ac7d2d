"""Rules that hold what was declared against what was measured, consumer by consumer.

P is the measured period, H the declared halo, T = min + n * step a tile, B = T - 2H its kept part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from packager.audit.declared import declared_axes
from packager.audit.findings import Finding
from packager.audit.measure import SAME, MeasuredAxis, Measurement
from packager.audit.model import Model, Tensor
from packager.audit.proposal import input_sized
from packager.consumers.placement import DeclaredAxis

Pair = tuple[str, DeclaredAxis, MeasuredAxis]


def measured_findings(model: Model, output: Tensor, measured: Measurement) -> Iterator[Finding]:
    """Everything that running the network shows about one output."""
    yield from _stops(output, measured)
    yield from _mode(output, measured)
    axes = declared_axes(model, output)
    yield from _sizes(output, axes, measured)
    if axes is None or not measured.axes:
        return
    pairs = [(f"{output.id}.{m.name}", d, m) for d, m in zip(axes, measured.axes, strict=True)]
    for pair in pairs:
        if measured.statistics:
            continue
        yield from _period_missing(pair)
        yield from _halo(pair)
        if (pair[2].period or 1) > 1 and input_sized(pair[2]):
            yield from _grid(pair)


def preprocessing_findings(tensor: Tensor, sigma: float) -> Iterator[Finding]:
    # Per-sample statistics are taken per padded tile (ilastik), per padded image (core's whole
    # mode) or per image (core blockwise, JDLL): only fixed constants agree.
    if sigma > SAME:
        yield Finding(
            "preprocessing-statistics",
            "error",
            tensor.id,
            ", ".join(tensor.processing),
            f"{sigma:.2g} sigma",
            "Pre-processing takes statistics from what it is given: half an image comes out "
            f"{sigma:.2g} standard deviations different. ilastik gives it each padded tile.",
            "use fixed constants: fixed_zero_mean_unit_variance or scale_linear",
        )


def _stops(output: Tensor, measured: Measurement) -> Iterator[Finding]:
    for size, words in measured.stops:
        told = " x ".join(map(str, size))
        yield Finding(
            "declared-size-fails",
            "error",
            output.id,
            told,
            "stops",
            f"The network does not take a declared size: {words}.",
            "declare the sizes that the network takes",
        )
    if measured.problem and not measured.stops:
        yield Finding(
            "not-measured",
            "error",
            output.id,
            "",
            measured.problem,
            f"Nothing could be measured: {measured.problem}.",
            "mend the network, then audit again",
        )


def _mode(output: Tensor, measured: Measurement) -> Iterator[Finding]:
    if measured.repeats > SAME:
        yield Finding(
            "training-mode",
            "error",
            output.id,
            "",
            f"{measured.repeats:.2g} sigma",
            "Two runs on one image differ: dropout is active.",
            "export the network from net.eval()",
        )
    # Its add-weights exports BatchNorm networks to TorchScript in train mode: wrong by 8-9 sigma.
    batched = measured.batch is not None and measured.batch > SAME
    if batched:
        yield Finding(
            "batch-statistics",
            "error",
            output.id,
            "",
            f"{measured.batch:.2g} sigma",
            "The answer to an image changes with its neighbour in the batch: a batch norm was "
            "exported in training mode.",
            "export the network from net.eval()",
        )
    # GroupNorm and InstanceNorm compute statistics per tile and break the equality.
    if measured.statistics:
        yield Finding(
            "statistics-in-graph",
            "error",
            output.id,
            "",
            "every pixel depends on the whole tile",
            "The network takes statistics of each tile (group, instance or layer norm, global "
            "pooling): no halo hides the seams.",
            "use batch norm in eval mode or no norm; that needs another training",
        )


def _sizes(
    output: Tensor, axes: tuple[DeclaredAxis, ...] | None, measured: Measurement
) -> Iterator[Finding]:
    if measured.channels and measured.channels != output.channels:
        yield Finding(
            "output-channels",
            "error",
            output.id,
            str(output.channels),
            str(measured.channels),
            "The network answers another number of channels than declared.",
            "correct channel_names",
        )
    if axes is None:
        yield Finding(
            "not-tiled",
            "note",
            output.id,
            "",
            "",
            "This output does not have the image's space axes: it cannot be tiled, nor is it "
            "judged.",
            "",
        )
        return
    for number, axis in enumerate(axes):
        wrong = [
            (given[number], got[number])
            for given, got in measured.sizes
            if axis.fits(given[number]) and axis.answer(given[number]) != got[number]
        ]
        if wrong:
            given, got = wrong[0]
            yield Finding(
                "output-size",
                "error",
                f"{output.id}.{output.space[number].id}",
                f"{given} -> {axis.answer(given)}",
                f"{given} -> {got}",
                "The network answers with another size than declared.",
                "declare the offset and scale it has, or better an output of the input's size",
            )


def _period_missing(pair: Pair) -> Iterator[Finding]:
    where, _, axis = pair
    if axis.period is None:
        yield Finding(
            "no-period",
            "error" if axis.complete else "note",
            where,
            "",
            "none up to 32",
            "The network commutes with no shift up to 32 pixels: tiles that start anywhere but at "
            "the image's origin differ."
            if axis.complete
            else "No period could be measured: the field fills the largest affordable image.",
            "pool by 2 or 3, and do not compute with positions inside the network",
        )


def _halo(pair: Pair) -> Iterator[Finding]:
    # Tile-and-stitch equals whole-image prediction only if the halo covers the receptive field.
    where, declared, axis = pair
    needed = max(axis.before, axis.after)
    if declared.halo >= needed and axis.complete:
        return
    if declared.halo >= needed:
        yield Finding(
            "field-open",
            "note",
            where,
            f"halo {declared.halo}",
            f"at least {needed}",
            "The receptive field is larger than any affordable image: the halo may be too small.",
            "measure with a larger budget, or trust the seams that are shown",
        )
        return
    least = "" if axis.complete else "at least "
    blank = max(axis.blank)
    told = f", {blank} of them blank" if blank else ""
    yield Finding(
        "halo-too-small",
        "error",
        where,
        f"halo {declared.halo}",
        f"{least}{needed}",
        f"Of each tile's answer {least}{needed} pixels per side need what lies beyond the tile"
        f"{told}; {declared.halo} are cropped: seams.",
        f"declare a halo of {least}{needed} or more, a multiple of the period",
    )


def _grid(pair: Pair) -> Iterator[Finding]:
    """Only for outputs of the input's size; the others have their own findings."""
    where, declared, axis = pair
    period, halo = axis.period or 1, declared.halo
    step, least = declared.step, declared.minimum
    kept = f"{least - 2 * halo}"
    # core, JDLL: step a multiple of P; ilastik: tiles are re-centred by half of B, so 2P.
    if step % (2 * period):
        core = step % period != 0
        yield Finding(
            "step-off-period",
            "error" if core else "warning",
            where,
            f"step {step}",
            f"period {period}",
            f"Tiles start off the network's grid of {period}: "
            + ("wrong pixels in core, JDLL and ilastik." if core else "wrong pixels in ilastik."),
            f"declare a step that is a multiple of {2 * period}",
        )
    # core: (min - 2H) % P == 0; ilastik: B % 2P == 0.
    if (least - 2 * halo) % (2 * period):
        core = (least - 2 * halo) % period != 0
        yield Finding(
            "min-off-period",
            "error" if core else "warning",
            where,
            f"min {least} - 2 * halo {halo} = {kept}",
            f"period {period}",
            "The kept part of a tile is no multiple of "
            + (f"{period}: wrong pixels in core." if core else f"{2 * period}: wrong in ilastik."),
            f"declare min and halo so that min - 2 * halo is a multiple of {2 * period}",
        )
    # JDLL: 2H % P == 0, for it keeps T - 2H of tiles that are multiples of step.
    if (2 * halo) % period:
        yield Finding(
            "halo-off-period",
            "error",
            where,
            f"halo {halo}",
            f"period {period}",
            f"Twice the halo is no multiple of {period}: JDLL's tiles start off the grid.",
            f"declare a halo of {math.ceil(halo / period) * period}",
        )
