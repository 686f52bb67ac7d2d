"""The picture of an epoch: one row of four panels for each of a few validation images.

c: 40 true | truth: 40      | embeddings    | instances: 38, 31 match
+---------+ +--------------+ +-------------+ +------------------------+
| input   | | own colours  | | 3 principal | | the truth's colours;   |
|         | |              | | components  | | white: matches nothing |
+---------+ +--------------+ +-------------+ +------------------------+
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.datasets import Sample
from training.progress.colours import InstancePainter
from zoo_models.colours import Floats, Rgb, channel_colours, embedding_colours, principal_directions

ROWS = 3
GAP = 6
"""Pixels between panels and between rows."""
CAPTION = 14
LARGEST, SMALLEST = 384, 192
"""Longer side of a panel: larger images lose pixels, smaller ones are enlarged, never blended."""
PAPER, INK = 24, 225


def choose(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Up to three of the samples, spread evenly over those that hold instances.

    The same for the same split, so that the pictures of all epochs show the same images. When no
    sample holds an instance, any are taken.
    """
    found = [n for n, s in enumerate(samples) if s.labels.any()] or list(range(len(samples)))
    rows = min(ROWS, len(found))
    return tuple(found[(2 * row + 1) * len(found) // (2 * rows)] for row in range(rows))


def draw_row(
    sample: Sample,
    embeddings: Floats,
    instances: NDArray[np.integer],
    *,
    previous: Floats | None = None,
) -> tuple[Rgb, Floats]:
    """One image's row of panels (height, width, 3), and the directions its colours stand for.

    `embeddings` D(z)yx and `instances` (z)yx are the prediction for `sample`; `previous` is what
    this function gave for the same image one epoch before. Of a stack one plane is shown, the one
    with the most true instances; instances are matched over the whole stack.
    """
    painter = InstancePainter(sample.labels, instances)
    plane = richest_plane(sample.labels) if sample.labels.ndim == 3 else None
    image, vectors, truth, found = (
        _shown(array, plane) for array in (sample.image, embeddings, sample.labels, instances)
    )
    directions = principal_directions(vectors, previous)
    where = "" if plane is None else f", plane {plane}"
    panels = (
        (f"{sample.name}{where}", channel_colours(image)),
        (f"truth: {len(painter.colour_of)}", painter.truth(truth)),
        ("embeddings", embedding_colours(vectors, directions)),
        (
            f"instances: {np.count_nonzero(np.unique(instances))}, {len(painter.partner_of)} match",
            painter.instances(found, truth),
        ),
    )
    return _join([_panel(text, picture) for text, picture in panels], axis=1), directions


def draw_page(rows: Sequence[Rgb]) -> Image.Image:
    """All rows of an epoch, one below the other."""
    width = max(row.shape[1] for row in rows)
    wide = [_padded(row, row.shape[0], width) for row in rows]
    return Image.fromarray(_join(wide, axis=0))


def richest_plane(labels: NDArray[np.integer]) -> int:
    """The plane of (Z, Y, X) labels with the most instances; of equal ones, the most central."""
    counts = [np.count_nonzero(np.unique(plane)) for plane in labels]
    middle = (len(labels) - 1) / 2
    return max(range(len(labels)), key=lambda z: (counts[z], -abs(z - middle)))


def _shown(array: NDArray[Any], plane: int | None) -> NDArray[Any]:
    if plane is not None:
        array = array[..., plane, :, :]
    every = -(-max(array.shape[-2:]) // LARGEST)
    return array[..., ::every, ::every]


def _panel(text: str, picture: Rgb) -> Rgb:
    zoom = max(1, SMALLEST // max(picture.shape[:2]))
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    strip = Image.new("RGB", (picture.shape[1], CAPTION), (PAPER,) * 3)
    plain = text.encode("ascii", "replace").decode()  # the font that is always there has no more
    ImageDraw.Draw(strip).text((1, 0), plain, fill=(INK,) * 3, font=ImageFont.load_default())
    return np.concatenate([np.asarray(strip), picture])


def _padded(picture: Rgb, height: int, width: int) -> Rgb:
    """The picture with paper below and to its right."""
    page = np.full((height, width, 3), PAPER, np.uint8)
    page[: picture.shape[0], : picture.shape[1]] = picture
    return page


def _join(pictures: Sequence[Rgb], *, axis: int) -> Rgb:
    """Pictures side by side (1) or one below the other (0), gaps of paper between them."""
    parts = []
    for picture in pictures:
        height, width = picture.shape[:2]
        gaps = (height + GAP * (axis == 0), width + GAP * (axis == 1))
        parts.append(_padded(picture, *gaps))
    return np.concatenate(parts, axis=axis)
