"""Statements of the theory that need no training: counted and probed on networks as they are.

Corollaries 4 and 5 in one formula: instances that look alike, s pixels apart, meet P / gcd(P, s)
phases per axis of a network of period P. All P when s and P share no prime (Corollary 4: P^d
instances), one when s is a multiple of P. So a spacing that is the product of primes 2 * 3 * 5 is
one at which no network that pools once by 2, by 3 or by 5 can tell anything apart, while one that
pools by 7 can (Corollary 5, as we read it: products of primes decide).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from training.experiments.shift_equivariance.counting import (
    answer_to,
    different,
    ids_in_window,
    most_instances,
    output_functions,
    random_network,
    smallest_input,
)
from training.experiments.shift_equivariance.measured import Conditions, Measured
from training.experiments.shift_equivariance.numbering import numbering_network
from zoo_models.architectures.unet_valid import UNetValid
from zoo_models.geometry import ValidUNetAxis
from zoo_models.receptive_field import ValidSizes, probe


@dataclass(frozen=True)
class Shape:
    """Of a network: dimensions d, poolings l, factor f."""

    ndim: int
    levels: int
    factor: int

    @property
    def period(self) -> int:
        return int(self.factor**self.levels)

    @property
    def functions(self) -> int:
        """P^d."""
        return int(self.period**self.ndim)


QUICK_SHAPES = tuple(Shape(*s) for s in ((2, 1, 2), (2, 2, 2), (2, 3, 2), (2, 1, 3), (3, 1, 2)))
FULL_SHAPES = (
    *QUICK_SHAPES,
    *(Shape(*s) for s in ((2, 4, 2), (2, 2, 3), (3, 1, 3), (3, 2, 2))),
)
SPACINGS = range(13, 20)
"""Of the spacings table, with three poolings by two: P = 8, 64 instances."""


def functions(conditions: Conditions) -> Measured:
    """P^d relative-distinct output functions, and the period, of networks with random weights."""
    rows = []
    for shape in QUICK_SHAPES if conditions.quick else FULL_SHAPES:
        for upsampling in ("learnt", "nearest"):
            network = random_network(
                shape.ndim,
                levels=shape.levels,
                factor=shape.factor,
                upsampling=upsampling,
                seed=conditions.seed,
            )
            rows.append(
                {
                    "d": shape.ndim,
                    "l": shape.levels,
                    "f": shape.factor,
                    "upsampling": upsampling,
                    "period P": shape.period,
                    "period, probed": _probed_period(network, shape),
                    "P^d": shape.functions,
                    "output functions, counted": output_functions(network, seed=conditions.seed),
                    "ids on ones": ids_on_ones(network),
                }
            )
    learnt = [r for r in rows if r["upsampling"] == "learnt"]
    return Measured(
        rows,
        {
            "the probed period is f^l": all(r["period, probed"] == r["period P"] for r in rows),
            "there are P^d output functions": all(
                r["output functions, counted"] == r["P^d"] for r in rows
            ),
            "an image of ones gets P^d ids with learnt upsampling": all(
                r["ids on ones"] == r["P^d"] for r in learnt
            ),
            "and one id with fixed upsampling": all(
                r["ids on ones"] == 1 for r in rows if r not in learnt
            ),
        },
    )


def capacity(conditions: Conditions) -> Measured:
    """Instances told apart at every spacing: the bound, Lemma 1's network, random networks."""
    cases = [
        *((Shape(2, 3, 2), s) for s in SPACINGS),
        *((Shape(d, 1, f), s) for d, f in itertools.product((2, 3), (2, 3)) for s in (5, 2 * f)),
    ]
    if not conditions.quick:
        cases += [*((Shape(2, 2, 3), s) for s in (10, 12, 18)), (Shape(3, 2, 2), 7)]
    rows = [_row(shape, spacing, seed=conditions.seed) for shape, spacing in cases]
    rows += [_row(Shape(2, 1, f), 2 * 3 * 5, seed=conditions.seed) for f in (2, 3, 5, 7)]
    return Measured(
        rows,
        {
            "Lemma 1's network tells as many apart as the bound allows": all(
                row["Lemma 1's network"] == row["bound"] for row in rows
            ),
            "random weights and learnt upsampling do so, too": all(
                row["random, learnt"] == row["bound"] for row in rows
            ),
            "fixed upsampling passes the bound nowhere": all(
                row["random, fixed"] <= row["bound"] for row in rows
            ),
            "all P^d at a spacing that shares no prime with P": all(
                row["bound"] == row["P^d"]
                for row in rows
                if math.gcd(row["f"], row["spacing"]) == 1
            ),
            "one at a multiple of P": all(
                row["bound"] == 1 for row in rows if row["spacing"] % row["f"] ** row["l"] == 0
            ),
        },
        notes=(
            "Told apart here means: different but for rounding. How far apart training can push "
            "them is measured in fig2a to fig2c.",
        ),
    )


def _row(shape: Shape, spacing: int, *, seed: int) -> dict[str, int]:
    spacings = [spacing] * shape.ndim
    networks = {
        "Lemma 1's network": numbering_network(
            shape.ndim, levels=shape.levels, factor=shape.factor
        ),
        **{
            f"random, {name}": random_network(
                shape.ndim,
                levels=shape.levels,
                factor=shape.factor,
                upsampling=upsampling,
                seed=seed,
            )
            for name, upsampling in (("learnt", "learnt"), ("fixed", "nearest"))
        },
    }
    return {
        "d": shape.ndim,
        "l": shape.levels,
        "f": shape.factor,
        "P^d": shape.functions,
        "spacing": spacing,
        "bound": most_instances([shape.period] * shape.ndim, spacings),
        **{name: told_apart(network, spacings) for name, network in networks.items()},
    }


def told_apart(network: UNetValid, spacing: Sequence[int]) -> int:
    """Of P x P (x P) instances that look alike: how many get different answers in their middle.

    The picture has a bright cube of 3 pixels every `spacing` pixels per axis, without an end.
    """
    cells = network.period
    window = [n * s for n, s in zip(cells, spacing, strict=True)]
    size = smallest_input(network, window)
    grids = np.meshgrid(
        *(
            np.arange(-c, n - c) % s  # answered pixel 0 is the middle of the first instance
            for c, n, s in zip(network.shrink, size, spacing, strict=True)
        ),
        indexing="ij",
    )
    near = [np.minimum(g, s - g) <= 1 for g, s in zip(grids, spacing, strict=True)]
    answer = answer_to(network, np.logical_and.reduce(near)[None].astype(np.float64))
    middles = answer[:, *(slice(0, w, s) for w, s in zip(window, spacing, strict=True))]
    everywhere = answer.reshape(len(answer), -1).std(axis=1).max()
    return different(
        middles.reshape(len(answer), -1).T.astype(np.float64), spread=float(everywhere)
    )


def ids_on_ones(network: UNetValid) -> int:
    """Different answers within one period window of an image of ones."""
    size = smallest_input(network, network.period)
    answer = answer_to(network, np.ones((1, *size)))
    ids = ids_in_window(answer, network.period)
    return different(ids, spread=float(max(ids.std(axis=0).max(), np.abs(ids).max())))


def _probed_period(network: nn.Module, shape: Shape) -> int | None:
    axis = ValidUNetAxis(3, 1, shape.levels, shape.factor)
    sizes = [ValidSizes(axis.smallest_input, axis.period)] * shape.ndim
    budget = 16 * axis.smallest_input**shape.ndim
    found = probe(
        lambda image: answer_to(network, image), channels=1, sizes=sizes, budget_pixels=budget
    )
    periods = {a.period for a in found.axes}
    return periods.pop() if len(periods) == 1 else None
