"""The declaration that would be right, from what was measured.

halo    smallest multiple of P that covers what the answer needs
step    lcm over the axes of 2P                    the same on all axes, so that core's permutation
min     multiple of step, min - 2 halo >= 2P       of axes can transpose nothing

A fixed input size stays; then only the halo is free, and size - 2 halo must be a multiple of 2P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from packager.audit.measure import MeasuredAxis, Measurement
from packager.audit.model import Model


@dataclass(frozen=True)
class ProposedAxis:
    """min, step and halo of one axis; step 0: a fixed size."""

    name: str
    minimum: int
    step: int
    halo: int


@dataclass(frozen=True)
class Proposal:
    """A declaration for the image's space axes and for all outputs that have them.

    `reason`: why no declaration can be right, or "".
    """

    axes: tuple[ProposedAxis, ...]
    reason: str = ""


def input_sized(axis: MeasuredAxis) -> bool:
    """Whether the answer has the input's size along this axis."""
    return axis.scale == 1 and axis.margin == 0


def propose(model: Model, measured: Sequence[Measurement]) -> Proposal:
    """One declaration for all outputs (JDLL wants the same halo for all of them)."""
    tiled = [m for m in measured if m.axes or m.statistics or m.problem]
    reason = _reason(tiled)
    if reason:
        return Proposal((), reason)
    image = model.image
    columns = [[m.axes[i] for m in tiled] for i in range(len(image.space))]
    periods = [math.lcm(*(a.period or 1 for a in column)) for column in columns]
    needs = [max(max(a.before, a.after) for a in column) for column in columns]
    if any(axis.step == 0 for axis in image.space):
        return _fixed(model, periods, needs)
    halos = [math.ceil(n / p) * p for n, p in zip(needs, periods, strict=True)]
    step = math.lcm(*(2 * p for p in periods))
    least = max(2 * h + 2 * p for h, p in zip(halos, periods, strict=True))
    minimum = math.ceil(least / step) * step
    return Proposal(
        tuple(ProposedAxis(a.id, minimum, step, h) for a, h in zip(image.space, halos, strict=True))
    )


def _reason(tiled: Sequence[Measurement]) -> str:
    if not tiled:
        return "no output has the image's space axes"
    for m in tiled:
        if m.statistics:
            return f"{m.output} depends on statistics of the whole tile; the network must change"
        if m.problem:
            return f"{m.output} could not be measured ({m.problem})"
        for axis in m.axes:
            where = f"{m.output}.{axis.name}"
            if not axis.complete:
                return f"the receptive field of {where} was not seen to end"
            if axis.period is None:
                return f"{where} has no period; the network must change"
            if not input_sized(axis):
                return (
                    f"{where} is {axis.scale} * input {int(axis.margin):+d} pixels wide, not the "
                    "input's size; the network must be wrapped"
                )
    return ""


def _fixed(model: Model, periods: Sequence[int], needs: Sequence[int]) -> Proposal:
    axes = []
    for axis, period, need in zip(model.image.space, periods, needs, strict=True):
        if axis.step:
            return Proposal((), "some axes have a fixed size and others not; declare all alike")
        size = axis.minimum
        fits = [
            halo
            for halo in range(need, (size - 2 * period) // 2 + 1)
            if (2 * halo) % period == 0 and (size - 2 * halo) % (2 * period) == 0
        ]
        if not fits:
            return Proposal(
                (),
                f"a fixed size of {size} leaves no kept part on the grid of {period} beside a halo "
                f"of {need}",
            )
        axes.append(ProposedAxis(axis.id, size, 0, fits[0]))
    return Proposal(tuple(axes))
