"""Pictures and charts of the experiments as small files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo_models.colours import embedding_colours, label_colours

Rgb = NDArray[np.uint8]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 52, 170, 30, 40
"""Of a chart and its margins, in SVG units."""
GAP = 6
"""Pixels between two panels, after enlarging."""
INKS = ("#1668a8", "#c8501e", "#3c8c3c", "#7a4ca0")


def panels(pictures: Sequence[Rgb], *, enlarge: int = 3) -> Rgb:
    """Pictures of one height side by side, every pixel `enlarge` pixels wide, white between."""
    large = [p.repeat(enlarge, axis=0).repeat(enlarge, axis=1) for p in pictures]
    gap = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for p in large for part in (gap, p)][1:], axis=1)


def embedding_picture(embeddings: NDArray[np.float32]) -> Rgb:
    """Embeddings 3yx as red, green, blue: pixels of one colour are one instance."""
    return embedding_colours(embeddings, np.eye(len(embeddings)))


def label_picture(labels: NDArray[np.integer]) -> Rgb:
    """Labels yx, a colour each, 0 black."""
    return label_colours(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))


def with_lines(picture: Rgb, every: int) -> Rgb:
    """White dots along the borders of tiles that are `every` pixels wide."""
    drawn = picture.copy()
    drawn[every::every, ::2] = 255
    drawn[::2, every::every] = 255
    return drawn


def write_png(path: Path, picture: Rgb) -> None:
    Image.fromarray(picture).quantize(128).save(path, optimize=True)


def chart(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    across: str,
    marked: Sequence[float] = (),
) -> str:
    """An SVG of curves (name -> points); `marked` places on the x axis get a grey line."""
    points = np.array([p for curve in curves.values() for p in curve], float)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    y1 = y1 if y1 > y0 else y0 + 1

    def at(x: float, y: float) -> tuple[float, float]:
        right = (x - x0) / max(x1 - x0, 1e-9) * (WIDTH - LEFT - RIGHT)
        up = (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return LEFT + right, HEIGHT - BOTTOM - up

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 16, title, "start"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across, "middle"),
    ]
    for value in (y0, y1):
        parts.append(_text(LEFT - 6, at(x0, value)[1] + 4, f"{value:.3g}", "end"))
    for value in dict.fromkeys([x0, *marked, x1]):
        x, bottom = at(value, y0)
        parts.append(_text(x, bottom + 14, f"{value:g}", "middle"))
        if value in marked:
            parts.append(f'<path d="M{x:.1f} {TOP}V{bottom:.1f}" stroke="#bbb"/>')
    for number, (name, curve) in enumerate(curves.items()):
        ink = INKS[number % len(INKS)]
        places = [at(x, y) for x, y in sorted(curve)]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{line}" fill="none" stroke="{ink}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{ink}"/>' for x, y in places]
        if len(curves) > 1:
            parts.append(_text(WIDTH - RIGHT + 12, TOP + 12 + 16 * number, name, "start", ink))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, ink: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">{text}</text>'
