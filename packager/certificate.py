"""The certificate as a value: per consumer, what was tried and what came out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

EXACT = 1e-4
"""Largest difference, in standard deviations of the whole pass, that float32 sums may cause."""


@dataclass(frozen=True)
class Trial:
    """One image under one placement.

    Attributes:
        size: of the image, (z)yx.
        weight_format: file that was run; "" when nothing was.
        tiles: how many; 0 when the consumer refused.
        difference: largest, in standard deviations of the whole pass; inf: tiles failed.
        refusal: what the consumer says instead, or "".
    """

    size: tuple[int, ...]
    weight_format: str
    tiles: int
    difference: float
    refusal: str = ""

    @property
    def exact(self) -> bool:
        return not self.refusal and self.difference <= EXACT


@dataclass(frozen=True)
class Verdict:
    """All trials of one consumer. `grid`: sizes that are multiples of it, per axis, are exact;
    empty: no such grid."""

    consumer: str
    grid: tuple[int, ...]
    trials: tuple[Trial, ...]

    @property
    def placed(self) -> tuple[Trial, ...]:
        return tuple(t for t in self.trials if not t.refusal)

    @property
    def outcome(self) -> str:
        """One of: exact, exact on multiples of G, not exact, refuses."""
        if not self.placed:
            return f"refuses: {self.trials[0].refusal}"
        if not self.grid:
            return "not exact"
        if set(self.grid) == {1}:
            return "exact"
        sizes = " x ".join(map(str, self.grid)) if len(set(self.grid)) > 1 else self.grid[0]
        return f"exact on sizes that are multiples of {sizes}"

    def largest(self, *, on: bool) -> float | None:
        """Largest difference of the trials on (off) the grid; None: there were none."""
        found = [t.difference for t in self.placed if on_grid(t.size, self.grid) == on]
        return max(found, default=None)


@dataclass(frozen=True)
class Certificate:
    verdicts: tuple[Verdict, ...]
    versions: dict[str, str]


def on_grid(size: Sequence[int], grid: Sequence[int]) -> bool:
    """Whether every length is a multiple of the grid; never, where there is no grid."""
    return bool(grid) and all(n % g == 0 for n, g in zip(size, grid, strict=True))


def rows(certificate: Certificate) -> list[tuple[str, str, str, str]]:
    """Consumer, outcome, largest difference on and off the grid, as text for a table."""

    def told(value: float | None) -> str:
        if value is None:
            return "not tried"
        return "tiles fail" if math.isinf(value) else f"{value:.1e}"

    return [
        (v.consumer, v.outcome, told(v.largest(on=True)), told(v.largest(on=False)))
        for v in certificate.verdicts
    ]


def as_config(certificate: Certificate) -> dict[str, object]:
    """The certificate as `config.spoco_zoo.tiling_certificate` has it: JSON values only."""
    return {
        "exact_within_sigma": EXACT,
        "versions": certificate.versions,
        "consumers": [
            {
                "consumer": v.consumer,
                "outcome": v.outcome,
                "grid": list(v.grid),
                "weight_formats": sorted({t.weight_format for t in v.placed}),
                "sizes": [list(s) for s, _ in itertools.groupby(v.trials, key=lambda t: t.size)],
                "largest_difference_sigma": _number(v.largest(on=True)),
                "largest_difference_sigma_off_grid": _number(v.largest(on=False)),
                "refused": sorted({t.refusal for t in v.trials if t.refusal}),
            }
            for v in certificate.verdicts
        ],
    }


def _number(value: float | None) -> float | str | None:
    """One digit: the rest is noise of the last bit, and a package's bytes should repeat."""
    if value is None:
        return None
    return "tiles fail" if math.isinf(value) else float(f"{value:.0e}")
