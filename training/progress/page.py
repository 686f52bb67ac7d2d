"""A run as one HTML page: no script, no network; readable on a phone and in the dark.

The last picture is inside the file; the older ones are links beside it.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.progress.curves import Line, Points, chart, short

PICTURES = "pictures"

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --faint: #6b6b70; --rule: #ddd;
  --train: #1f5fbf; --pale: #b9cdea; --val: #c2570c }
@media (prefers-color-scheme: dark) { :root { --paper: #161618; --ink: #ececee; --faint: #a0a0a6;
  --rule: #38383c; --train: #7fb0ff; --pale: #38507a; --val: #ffa95c } }
body { font: 16px/1.5 system-ui, sans-serif; background: var(--paper); color: var(--ink);
  max-width: 76rem; margin: 1.2rem auto; padding: 0 1rem }
h1 { margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
p, figcaption, summary { overflow-wrap: anywhere }
.faint { color: var(--faint); font-size: .9rem }
.stopped { color: var(--val); font-weight: 600 }
.wide { overflow-x: auto } .wide img { min-width: 44rem; max-width: 100%; display: block }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
  gap: .8rem }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr));
  gap: .6rem }
.strip img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #181818 }
figure { margin: 0 } img { image-rendering: pixelated }
svg { width: 100%; display: block } svg text { font-size: 11px; fill: var(--faint) }
svg path { fill: none; stroke-linejoin: round; stroke-linecap: round }
.grid { stroke: var(--rule) } .pale { stroke: var(--pale) } .val { stroke: var(--val) }
.train, .sbd { stroke: var(--train) } .train, .val, .sbd { stroke-width: 2 }
b.train, b.sbd { color: var(--train) } b.val { color: var(--val) }
table { border-collapse: collapse } td { border-bottom: 1px solid var(--rule); padding: .2rem .8rem
  .2rem 0; overflow-wrap: anywhere } pre { overflow-x: auto; font-size: .85rem }
"""

LEGEND = (
    "Four panels per image: input; truth; the three principal components of the embeddings as red, "
    "green, blue; instances. An instance has the colour of the true one that it matches "
    "(IoU > 0.5); white ones match nothing, and a missed true instance is an outline."
)


@dataclass(frozen=True)
class RunState:
    """Where a run is. `said` is one word or a reason: "running", "finished", "stopped: ..."."""

    step: int
    max_steps: int
    said: str
    written: str


def page(
    provenance: Mapping[str, Any],
    state: RunState,
    *,
    curves: Mapping[str, Points],
    pictures: Sequence[Path],
) -> str:
    """The HTML of a run.

    Args:
        provenance: as in its checkpoint (training/provenance.py).
        curves: column of the tables -> (step, value).
        pictures: PNG files in RUN/pictures, the oldest first.

    Raises:
        OSError: the last picture cannot be read.
    """
    name = str(provenance["config"]["name"])
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        _headline(state, curves),
        *_last_picture(pictures),
        "<h2>Curves</h2>",
        '<p class="faint">Against optimiser steps. <b class="train">Blue</b>: mean of an epoch '
        'while training, pale: single steps; <b class="val">orange</b>: validation. Losses on a '
        "square-root axis.</p>",
        f'<div class="curves">{"".join(_charts(curves, state.step))}</div>',
        *_strip(pictures),
        "<h2>Configuration, seed, versions</h2>",
        f"<details><summary>Configuration</summary><pre>"
        f"{html.escape(as_toml(provenance['config']))}</pre></details>",
        _facts(provenance),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(name)}: step {state.step}</title><style>{STYLE}</style></head>"
        "<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def as_toml(config: Mapping[str, Any]) -> str:
    """A configuration of plain values and sections of plain values, in the form of its file.

    JSON's numbers, texts, lists and truth values are TOML's, too; a table in a section is written
    inline, and what is None is left out.
    """

    def value(v: Any) -> str:
        if isinstance(v, Mapping):
            return "{ " + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + " }"
        return json.dumps(v)

    def lines(section: Mapping[str, Any]) -> str:
        return "".join(f"{k} = {value(v)}\n" for k, v in section.items() if v is not None)

    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    sections = {k: v for k, v in config.items() if isinstance(v, Mapping)}
    return lines(plain) + "".join(f"\n[{name}]\n{lines(s)}" for name, s in sections.items())


def _headline(state: RunState, curves: Mapping[str, Points]) -> str:
    share = f"{100 * state.step / state.max_steps:.0f} %"
    facts = [f"step {state.step} of {state.max_steps} ({share})"]
    for column, name in (("val/ap50", "AP@0.5"), ("val/sbd", "SBD")):
        points = curves.get(column, ())
        if points:
            step, best = max(points, key=lambda p: (p[1], -p[0]))
            facts.append(f"{name} {points[-1][1]:.3f}, best {best:.3f} at step {step}")
    look = "stopped" if state.said.startswith("stopped") else "said"
    waits = " A page that is not written anew for long is of a run that died here."
    running = waits if state.said == "running" else ""
    return (
        f'<p><span class="{look}">{html.escape(state.said)}</span>: '
        f"{html.escape('; '.join(facts))}</p>"
        f'<p class="faint">Written {html.escape(state.written)}, and again after every validation.'
        f"{running}</p>"
    )


def _last_picture(pictures: Sequence[Path]) -> list[str]:
    if not pictures:
        return ['<p class="faint">No validation yet, so no picture.</p>']
    last = pictures[-1]
    inside = base64.b64encode(last.read_bytes()).decode()
    return [
        f"<h2>Validation, step {step_of(last)}</h2>",
        f'<div class="wide"><a href="{PICTURES}/{last.name}">'
        f'<img alt="input, truth, embeddings and instances after step {step_of(last)}" '
        f'src="data:image/png;base64,{inside}"></a></div>',
        f'<p class="faint">{html.escape(LEGEND)}</p>',
    ]


def _strip(pictures: Sequence[Path]) -> list[str]:
    if len(pictures) < 2:
        return []
    figures = "".join(
        f'<figure><a href="{PICTURES}/{p.name}"><img loading="lazy" alt="step {step_of(p)}" '
        f'src="{PICTURES}/{p.name}"></a><figcaption class="faint">step {step_of(p)}</figcaption>'
        "</figure>"
        for p in reversed(pictures)
    )
    return ["<h2>All validations, the last one first</h2>", f'<div class="strip">{figures}</div>']


def step_of(picture: Path) -> int:
    """step-000500.png -> 500."""
    return int(picture.stem.removeprefix("step-"))


def _charts(curves: Mapping[str, Points], last_step: int) -> list[str]:
    names = [
        column.removeprefix("train/").removesuffix("_step")
        for column in curves
        if column.startswith("train/") and column.endswith("_step")
    ]
    names.sort(key=lambda name: name != "loss")
    charts = [_scores(curves, last_step)]
    for name in names:
        steps, epochs = curves[f"train/{name}_step"], curves.get(f"train/{name}_epoch", ())
        lines = [Line(steps, "pale"), Line(epochs, "train")]
        words = f"{name.replace('_', ' ')} {_last(epochs or steps)}"
        if name == "loss":
            lines.append(Line(curves.get("val/loss", ()), "val"))
            words += f", validation {_last(curves.get('val/loss', ()))}"
        charts.append(_figure(html.escape(words + _gaps(steps)), lines, last_step))
    return charts


def _scores(curves: Mapping[str, Points], last_step: int) -> str:
    ap, sbd = curves.get("val/ap50", ()), curves.get("val/sbd", ())
    words = (
        f'validation: <b class="val">AP@0.5</b> {_last(ap)}, <b class="sbd">SBD</b> {_last(sbd)}'
    )
    return _figure(words, [Line(sbd, "sbd"), Line(ap, "val")], last_step, unit=True)


def _figure(words: str, lines: Sequence[Line], last_step: int, *, unit: bool = False) -> str:
    drawn = chart(lines, last_step=last_step, unit=unit)
    return f"<figure><figcaption>{words}</figcaption>{drawn}</figure>"


def _last(points: Points) -> str:
    return short(points[-1][1]) if points else "none yet"


def _gaps(points: Points) -> str:
    gone = [step for step, value in points if not math.isfinite(value)]
    return f" (not finite at {len(gone)} steps, first at {gone[0]})" if gone else ""


def _facts(provenance: Mapping[str, Any]) -> str:
    facts = {
        "data": provenance["data"],
        "seed": provenance["seed"],
        **provenance["versions"],
    }
    transfer = provenance["config"]["transfer"]
    if transfer is not None:
        facts["started from"] = f"{transfer['name']}, sha256 {transfer['sha256']}"
    rows = "".join(
        f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>"
        for k, v in facts.items()
    )
    return f"<table>{rows}</table>"
