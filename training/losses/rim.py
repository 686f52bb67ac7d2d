"""Rim: the background beside the instances counts as much as an instance (not in the papers).

The pull term averages over an instance's pixels, so one pixel weighs 1 / N_k::

    background  N = 50,000      a pixel of it weighs little ...
      ┌─────────┐
      │ nucleus │ N = 300       ... one of the nucleus, a hundred times as much
      └─────────┘

Where a boundary is blurred the network then gives it to the instance, in 3D more than in 2D, and
objects come out too thick. This term pulls the background's pixels near instances once more, with
an average of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, max_pool3d, relu

WIDTH = 3
"""Pixels from an instance, along any axis, that are rim."""


def rim(embeddings: Tensor, labels: Tensor, delta_v: float, *, ignore: int | None = None) -> Tensor:
    """1/R sum_{i in rim} [ ||mu_0 - e_i|| - delta_v ]_+^2, a scalar; 0 without a rim.

    embeddings: D(z)yx of one sample; labels: (z)yx integers, 0 is the background, whose mean over
    the patch is mu_0. The rim: pixels of label 0 at most WIDTH pixels from an instance; pixels of
    the label `ignore` are none.
    """
    outside, flat = labels == 0, embeddings.flatten(1).float()
    instances = ~outside if ignore is None else ~outside & (labels != ignore)
    pool = max_pool2d if labels.ndim == 2 else max_pool3d
    near = pool(instances[None, None].float(), 2 * WIDTH + 1, stride=1, padding=WIDTH)[0, 0] > 0
    at_rim = (outside & near).flatten().nonzero()[:, 0]
    if len(at_rim) == 0:
        return flat.sum() * 0.0
    mean = flat.index_select(1, outside.flatten().nonzero()[:, 0]).mean(dim=1)
    difference = flat.index_select(1, at_rim).T - mean
    squared = torch.linalg.vecdot(difference, difference)
    distance = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
    return (relu(distance - delta_v) ** 2).mean()
