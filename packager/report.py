"""An audit as one HTML file that needs nothing else: no script, no network, pictures inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from packager.audit.audit import Audit
from packager.audit.measure import MeasuredAxis
from packager.audit.verdicts import Seam, Verdict

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f2f2f2 }
.error, .wrong, .fails, .hangs { color: #a40000; font-weight: 600 }
.warning, .refuses { color: #8a5a00; font-weight: 600 }
.exact { color: #11662b; font-weight: 600 }
figure { display: inline-block; margin: 0 1.5rem 1rem 0 }
img { image-rendering: pixelated; border: 1px solid #bbb; width: 280px }
figcaption { max-width: 280px; font-size: 13px }
"""

DECADES = 6
"""A seam picture spans this many powers of ten below its maximum of 1 standard deviation."""


def html_report(audit: Audit) -> str:
    """The whole page."""
    title = f"Tiling of {audit.name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(_summary(audit))}</p>",
        "<h2>Findings</h2>",
        _table(
            ("severity", "rule", "axis", "declared", "measured", "what happens", "what to do"),
            (
                (f.severity, f.rule, f.axis, f.declared, f.measured, f.message, f.hint)
                for f in audit.findings
            ),
        )
        if audit.findings
        else "<p>None.</p>",
        "<h2>Measured</h2>",
        _table(
            ("axis", "reach", "needs halo", "period", "output size"),
            (measured_row(m.output, a) for m in audit.measurements for a in m.axes),
        ),
        "<h2>What the consumers do</h2>",
        _table(
            ("consumer", "output", "image", "outcome", "tiles", "sentence"),
            (verdict_row(v) for v in audit.verdicts),
        ),
        "<h2>The declaration that would be right</h2>",
        f"<p>{html.escape(proposal_text(audit))}</p>",
        _seams(audit.seams),
    ]
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def measured_row(output: str, axis: MeasuredAxis) -> tuple[str, ...]:
    """Axis, reach per side, halo per side, period, size: as text for a table."""
    least = "" if axis.complete else "at least "
    size = f"{axis.scale} x input {int(axis.margin):+d}" if axis.margin else f"{axis.scale} x input"
    return (
        f"{output}.{axis.name}",
        f"{least}{axis.reach[0]} before, {least}{axis.reach[1]} after",
        f"{least}{axis.before} before, {least}{axis.after} after",
        "none found" if axis.period is None else str(axis.period),
        "input" if size == "1 x input" else size,
    )


def verdict_row(verdict: Verdict) -> tuple[str, ...]:
    """Consumer, output, image, outcome, tiles, sentence: as text for a table."""
    size = "x".join(map(str, verdict.size))
    tiles = str(verdict.tiles) if verdict.tiles else "-"
    return verdict.consumer, verdict.output, size, verdict.outcome, tiles, verdict.sentence


def proposal_text(audit: Audit) -> str:
    """One sentence."""
    if not audit.proposal.axes:
        return f"No declaration makes this package right: {audit.proposal.reason}."
    axes = "; ".join(
        f"{a.name}: min {a.minimum}, step {a.step}, halo {a.halo}"
        if a.step
        else f"{a.name}: size {a.minimum}, halo {a.halo}"
        for a in audit.proposal.axes
    )
    return f"{axes}; output sizes = the input's, no offset, no scale."


def _summary(audit: Audit) -> str:
    counts = [
        f"{number} {severity}{'s' if number != 1 else ''}"
        for severity in ("error", "warning", "note")
        if (number := sum(f.severity == severity for f in audit.findings))
    ]
    told = ", ".join(counts) or "no findings"
    ran = f"measured with its {audit.weights} weights" if audit.weights else audit.unmeasured
    return f"{audit.source.name}, format {audit.format_version}, {ran}: {told}."


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        known = text in ("error", "warning", "wrong", "exact", "refuses", "hangs", "fails")
        mark = f' class="{text}"' if known else ""
        return f"<td{mark}>{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _seams(seams: Sequence[Seam]) -> str:
    if not seams:
        return "<p>No image was affordable: there is no picture of the seams.</p>"
    last = max(seams, key=lambda s: sum(n % 16 != 0 for n in s.size)).size  # off the grid
    figures = "\n".join(_figure(seam) for seam in seams if seam.size == last)
    return (
        "<h2>Seams: whole minus tiled</h2><p>Largest difference over the channels. Black: less "
        f"than 1e-{DECADES} standard deviations; white: 1 or more; logarithmic between.</p>"
        + figures
    )


def _figure(seam: Seam) -> str:
    picture = base64.b64encode(seam_png(seam.difference)).decode()
    size = "x".join(map(str, seam.size))
    words = f"{seam.consumer}, {seam.output}, {size}: at most {seam.difference.max():.1e} sigma"
    told = html.escape(words)
    return (
        f'<figure><img alt="{told}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{told}</figcaption></figure>"
    )


def seam_png(difference: NDArray[np.float32]) -> bytes:
    """(z)yx standard deviations -> a grey PNG of (y, x), the maximum over z."""
    plane = difference.max(axis=0) if difference.ndim == 3 else difference
    level = np.log10(np.maximum(np.minimum(plane, 1.0), 10.0**-DECADES))
    grey = np.round(255 * (level + DECADES) / DECADES).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()
