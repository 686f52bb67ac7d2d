"""Consistency: two networks select the same pixels around one anchor (Wolny et al. 2022, Eq. 7).

The student f and the teacher g see two augmentations of one crop that leave every pixel in its
place. No label is needed, so the anchors come from where there is none::

    1   draw an anchor from the uncovered part of the unlabeled region U
    2   it covers the pixels that are at most delta_v from it in the student's embeddings, S >= t
    3   until U is covered
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from training.losses.chunks import sum_over_pixels
from training.losses.instance_selection import soft_masks
from training.losses.instances import mean_or_zero

LIMIT = 20
"""Largest number of anchors per sample: early in training U is covered by very many."""

CHUNK = 1 << 17
"""Pixels whose distance to an anchor is computed at a time."""


def consistency(
    student: Tensor, teacher: Tensor, region: Tensor, *, delta_v: float, t: float
) -> Tensor:
    """1/K sum_k (1 - Dice(S_k^f, S_k^g)) over all pixels, a scalar; 0 where U is empty.

    The squared (V-Net) denominator, as in the object term.

    Args:
        student, teacher: (N, D), the embeddings of the same pixels by f and g.
        region: (N,) bool, the unlabeled region U.
    """
    anchors = draw_anchors(student, region, delta_v=delta_v)
    overlap, squares = sum_over_pixels(
        partial(_overlap_and_squares, delta_v=delta_v, t=t),
        (student, teacher),
        (student[anchors], teacher[anchors]),
        width=len(anchors),
    )
    return mean_or_zero(1 - 2 * overlap / squares)  # squares >= 2: an anchor selects itself


def _overlap_and_squares(
    student: Tensor, teacher: Tensor, f_anchors: Tensor, g_anchors: Tensor, **margins: float
) -> Tensor:
    """(2, K): over the pixels, the sums of S^f S^g and of both squares."""
    first = soft_masks(student, f_anchors, **margins)
    second = soft_masks(teacher, g_anchors, **margins)
    squares = (first**2).sum(1) + (second**2).sum(1)
    return torch.stack([(first * second).sum(1), squares])


@torch.no_grad()
def draw_anchors(
    embeddings: Tensor, region: Tensor, *, delta_v: float, limit: int = LIMIT
) -> Tensor:
    """(K,) int64, K <= limit: pixels of the region, each out of reach of those before it.

    From torch's global generator. In a random order of the region, the first pixel that is still
    uncovered is a uniform draw from all that are.
    """
    places = region.nonzero()[:, 0]
    places = places[torch.randperm(len(places), device=places.device)]
    rows, anchors = embeddings.contiguous(), places[:0]
    while len(places) and len(anchors) < limit:
        anchors, anchor = torch.cat([anchors, places[:1]]), rows[places[:1]]
        far = [
            (rows.index_select(0, p) - anchor).norm(dim=1) > delta_v for p in places.split(CHUNK)
        ]
        places = places[torch.cat(far)]
    return anchors
