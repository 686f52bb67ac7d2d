"""The tables of a run as curves, and curves as SVG."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Points = Sequence[tuple[int, float]]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22
"""Margins of the drawing area, in SVG units as the two sizes above."""
MOST_POINTS = 600
"""A longer curve is drawn as means of neighbouring points."""
APART = 0.17
"""Least distance of two ticks, as a part of the axis."""


def read_curves(run_dir: Path) -> dict[str, Points]:
    """Column -> (step, value) in the order of steps, from RUN/csv/version_*/metrics.csv.

    A step is the number of steps done, as in the names of pictures; the tables count from 0.

    A run that was resumed has one table per start. They overlap where it was cut between two
    validations, and the later one holds from its first step on:

        version_0   |----------------x        killed
        version_1             |-----------    resumed from the last validation
        joined      |---------|-----------    every step once

    A last line without its end was being written when the run was killed, and is left out. A value
    that is not finite is kept.
    """
    joined: dict[str, dict[int, float]] = {}
    for path in sorted(run_dir.glob("csv/version_*/metrics.csv"), key=_version):
        rows = _rows(path)
        start = min((_steps(row) for row in rows), default=math.inf)
        for column, points in joined.items():
            joined[column] = {step: value for step, value in points.items() if step < start}
        for row in rows:
            for column, text in row.items():
                if text and column not in ("step", "epoch"):
                    joined.setdefault(column, {})[_steps(row)] = float(text)
    return {column: sorted(points.items()) for column, points in joined.items()}


def _steps(row: dict[str, str]) -> int:
    return int(row["step"]) + 1


def _version(path: Path) -> int:
    return int(path.parent.name.removeprefix("version_"))


def _rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


@dataclass(frozen=True)
class Line:
    """A curve and the CSS class that gives it its colour."""

    points: Points
    look: str


def chart(lines: Sequence[Line], *, last_step: int, unit: bool = False) -> str:
    """An SVG of curves over the steps from 0 to `last_step`.

    `unit`: scores, on an axis from 0 to 1. Otherwise the axis is a square-root one (of the sign's
    two sides), so that the high losses of the start do not flatten all that follows. Where values
    are not finite the line is interrupted.
    """
    values = [v for line in lines for _, v in line.points if math.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    if unit or high == low:
        low, high = 0.0, 1.0
    warp = _same if unit else _root
    x = _axis(0.0, float(max(last_step, 1)), LEFT, WIDTH - RIGHT)
    inner = _axis(warp(low), warp(high), HEIGHT - BOTTOM, TOP)

    def y(value: float) -> float:
        return inner(warp(value))

    parts = [_y_tick(v, y(v)) for v in ticks(low, high, warp)]
    parts += [_x_tick(v, x(v)) for v in ticks(0.0, float(max(last_step, 1)), _same)]
    parts += [_path(line, x, y) for line in lines]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img">'
        + "".join(parts)
        + "</svg>"
    )


def ticks(low: float, high: float, warp: Callable[[float], float]) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten, and 0) between two, none close to another."""
    top = max(abs(low), abs(high))
    decade = math.floor(math.log10(top))
    sizes = sorted(
        (m * 10.0**d for d in range(decade, decade - 3, -1) for m in (1, 2, 5)), reverse=True
    )
    span = warp(high) - warp(low)
    kept: list[float] = [0.0]
    for value in (sign * size for size in sizes for sign in (1, -1)):
        if low <= value <= high and all(abs(warp(value) - warp(k)) >= APART * span for k in kept):
            kept.append(value)
    return sorted(kept)


def thinned(points: Points) -> Points:
    """At most MOST_POINTS points: means of equal numbers of neighbours, at their last step."""
    every = -(-len(points) // MOST_POINTS)
    if every <= 1:
        return points
    groups = [points[start : start + every] for start in range(0, len(points), every)]
    return [(group[-1][0], sum(v for _, v in group) / len(group)) for group in groups]


def short(value: float) -> str:
    """Three digits, as few characters as they need."""
    return f"{value:.3g}"


def _same(value: float) -> float:
    return value


def _root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _y_tick(value: float, y: float) -> str:
    return (
        f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{html.escape(short(value))}</text>'
    )


def _x_tick(value: float, x: float) -> str:
    anchor = "end" if x > WIDTH - RIGHT - 15 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{value:.0f}</text>'


def _path(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A path with a new start after every gap; a single point is a dot."""
    places, pen = [], "M"
    for step, value in thinned(line.points):
        if math.isfinite(value):
            places.append(f"{pen}{x(step):.1f} {y(value):.1f}")
            pen = "L"
        else:
            pen = "M"
    return f'<path class="{line.look}" d="{_with_dots(places)}"/>'


def _with_dots(places: Iterable[str]) -> str:
    """Round caps show a point that has no neighbour, when it gets a line of length 0."""
    text = "".join(places)
    return "".join(f"M{part}" if "L" in part else f"M{part}h0" for part in text.split("M") if part)
