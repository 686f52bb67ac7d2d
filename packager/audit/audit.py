"""The one function: a package in, everything that can be said about its tiling out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from packager.audit.declared import declared_axes, declared_findings
from packager.audit.findings import Finding, is_fault, ordered
from packager.audit.measure import SAME, Measurement, measure, raw_image
from packager.audit.measured import measured_findings, preprocessing_findings
from packager.audit.model import Model, read_model
from packager.audit.processing import prepared, preprocessing, test_tensors, tile_dependence
from packager.audit.proposal import Proposal, propose
from packager.audit.runners import Array, Seen, load_network
from packager.audit.verdicts import Seam, Subject, Verdict, default_sizes, judge
from zoo_models.errors import InputError

JSON_VERSION = 1
"""Version of the layout of `--json`."""

PROBE_PIXELS = 2**20
"""Input pixels of the largest image that is probed."""
STITCH_PIXELS = 2**22
"""Input pixels that all tiles of one image may have together, to be run."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        source, name, format_version: of the package.
        weights: format that was run; "" when none could be, `unmeasured` says why.
        findings: errors first.
        measurements, verdicts: per output.
        proposal: the declaration that would be right.
        seams: pictures for the report.
    """

    source: Path
    name: str
    format_version: str
    weights: str
    unmeasured: str
    findings: tuple[Finding, ...]
    measurements: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    proposal: Proposal
    seams: tuple[Seam, ...]

    @property
    def exit_code(self) -> int:
        """0 clean, 1 errors or warnings, 2 nothing could be measured."""
        if self.unmeasured:
            return 2
        return int(any(is_fault(f) for f in self.findings))

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; pictures left out."""
        values = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "seams"
        }
        return {"version": JSON_VERSION, "exit_code": self.exit_code, **values}


def audit(
    source: Path,
    *,
    image_sizes: Sequence[tuple[int, ...]] = (),
    trust: bool = False,
    probe_pixels: int = PROBE_PIXELS,
    stitch_pixels: int = STITCH_PIXELS,
) -> Audit:
    """Judge a bioimage.io model, ours or anybody's.

    Args:
        image_sizes: (z)yx in pixels; default: one on the network's grid and one off it.
        trust: run Python of the package (only a state dict needs it).
        probe_pixels, stitch_pixels: input pixels of the largest probed image, and of all tiles of
            one image that is really run.

    Raises:
        PackageError: not a readable model, or one without an image input.
        InputError: an image size with another number of axes than the image input.
    """
    with read_model(source) as (model, content):
        _expect_axes(model, image_sizes)
        network, form, unusable = load_network(model, content, trust=trust)
        findings = declared_findings(model)
        findings += [
            Finding(
                "weights-do-not-load",
                "warning",
                "",
                bad.form,
                bad.reason,
                f"The {bad.form} weights cannot be loaded: {bad.reason}.",
                "write the file again",
            )
            for bad in unusable
            if network is not None or bad.form != "pytorch_state_dict"
        ]
        told = "; ".join(f"{bad.form}: {bad.reason}" for bad in unusable)
        if network is None:
            reason = told or "no TorchScript, ONNX or state dict weights in it"
            return _result(model, findings, reason)
        raw = test_tensors(model, content)
        seen = Seen(network, model, prepared(model, raw), 0)
        return _judged(_Budget(probe_pixels, stitch_pixels), seen, raw, form, findings, image_sizes)


@dataclass(frozen=True)
class _Budget:
    probe: int
    stitch: int


def _expect_axes(model: Model, image_sizes: Sequence[tuple[int, ...]]) -> None:
    axes = [a.id for a in model.image.space]
    for size in image_sizes:
        if len(size) != len(axes) or min(size) < 1:
            raise InputError(
                f"Image size {'x'.join(map(str, size))}: expected {len(axes)} sizes of at least 1 "
                f"for the axes {' '.join(axes)} of {model.source}."
            )


def _result(model: Model, findings: Sequence[Finding], unmeasured: str) -> Audit:
    return Audit(
        model.source,
        model.name,
        model.format_version,
        "",
        unmeasured,
        ordered(findings),
        (),
        (),
        Proposal((), "nothing was measured"),
        (),
    )


def _judged(
    budget: _Budget,
    seen: Seen,
    raw: Mapping[str, Array],
    form: str,
    findings: list[Finding],
    image_sizes: Sequence[tuple[int, ...]],
) -> Audit:
    model = seen.model
    process = preprocessing(model, raw)
    test = raw[model.image.id]
    sigma = tile_dependence(process, raw_image(seen, test, [64] * len(model.image.space)))
    findings = [*findings, *preprocessing_findings(model.image, sigma)]
    measurements, verdicts, seams = [], [], []
    for number, output in enumerate(model.outputs):
        declared = declared_axes(model, output)
        at = dataclasses.replace(seen, number=number)
        if declared is None:
            findings += measured_findings(model, output, Measurement(output.id))
            continue
        measured = measure(at, budget_pixels=budget.probe)
        measurements.append(measured)
        findings += measured_findings(model, output, measured)
        subject = Subject(at, measured, declared, process, sigma > SAME, test, budget.stitch)
        for size in image_sizes or default_sizes(subject):
            told, pictures = judge(subject, size)
            verdicts += told
            seams += pictures
    return Audit(
        model.source,
        model.name,
        model.format_version,
        form,
        "",
        ordered(findings),
        tuple(measurements),
        tuple(verdicts),
        propose(model, measurements),
        tuple(seams),
    )


def _plain(value: Any) -> Any:
    """Dataclasses, tuples, paths and fractions as the values of JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
