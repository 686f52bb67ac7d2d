"""The instances of one patch, as flat tensors that every loss term shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instances:
    """C instances over N pixels, and M pixels of which nothing is known.

    Attributes:
        embeddings: (N, D) float32.
        index: (N,) int64, which instance each pixel belongs to, 0..C-1.
        counts: (C,) float32, pixels per instance.
        means: (C, D) float32, mean embedding per instance.
        near: (C, C) bool, which pairs are compared: all, or those whose bounding boxes are close.
        unlabeled: (M, D) float32, the pixels of no known instance; None under full supervision.
        near_unlabeled: (C, M) bool, the unlabeled pixels that are compared with each instance: all,
            or those close to its bounding box; None under full supervision.
    """

    embeddings: Tensor
    index: Tensor
    counts: Tensor
    means: Tensor
    near: Tensor
    unlabeled: Tensor | None = None
    near_unlabeled: Tensor | None = None

    @classmethod
    def from_patch(
        cls,
        embeddings: Tensor,
        labels: Tensor,
        *,
        neighbourhood: int | None = None,
        unlabeled: int | None = None,
    ) -> Instances:
        """From one sample: embeddings D(z)yx of any float type, labels (z)yx of any integer type.

        Every label is an instance, 0 (the background) too: this is full supervision. Under sparse
        supervision the label `unlabeled` is none, and there may be no instance at all.
        `neighbourhood`: largest gap in pixels, along any axis, between the bounding boxes of two
        instances that are near; None: all are near.
        """
        flat, ids = embeddings.flatten(1).float().T, labels.flatten()
        known = None if unlabeled is None else ids != unlabeled
        rest = None if known is None else flat[~known]
        if known is not None:
            flat, ids = flat[known], ids[known]
        _, index, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, index, flat)
        near, near_rest = _near(labels.shape, index, len(counts), neighbourhood, known=known)
        return cls(flat, index, counts.float(), sums / counts[:, None], near, rest, near_rest)

    def average(self, per_pixel: Tensor) -> Tensor:
        """1/C sum_k 1/N_k sum_{i in k} of a value (N,) per pixel; 0 without instances."""
        sums = per_pixel.new_zeros(len(self.counts)).index_add(0, self.index, per_pixel)
        return mean_or_zero(sums / self.counts)

    def random_pixels(self) -> Tensor:
        """One pixel of each instance, uniformly drawn: (C,) int64 indices into the N pixels.

        Pixels are shuffled, then sorted (stably) by instance; the first of each run is the draw.
        """
        shuffled = torch.randperm(len(self.index), device=self.index.device)
        by_instance = shuffled[torch.argsort(self.index[shuffled], stable=True)]
        first = torch.cumsum(self.counts.long(), 0) - self.counts.long()
        return by_instance[first]


def mean_or_zero(values: Tensor) -> Tensor:
    """The mean, and of no values a 0 that still belongs to the graph."""
    return values.mean() if len(values) else values.sum()


def _near(
    shape: torch.Size, index: Tensor, number: int, gap: int | None, *, known: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Which instances (C, C) and which unlabeled pixels (C, M) are close to each instance: bool."""
    if gap is None:
        near = torch.ones(number, number, dtype=torch.bool, device=index.device)
        return near, None if known is None else near.new_ones(number, int((~known).sum()))
    grid = torch.meshgrid([torch.arange(n, device=index.device) for n in shape], indexing="ij")
    places = torch.stack(grid).flatten(1)
    inside = places if known is None else places[:, known]
    owner = index.expand_as(inside)
    first = inside.new_full((len(shape), number), max(shape)).scatter_reduce(
        1, owner, inside, "amin"
    )
    last = inside.new_zeros(len(shape), number).scatter_reduce(1, owner, inside, "amax")
    near = _close(first, last, (first, last), gap)
    if known is None:
        return near, None
    rest = places[:, ~known]
    return near, _close(first, last, (rest, rest), gap)


def _close(first: Tensor, last: Tensor, others: tuple[Tensor, Tensor], gap: int) -> Tensor:
    """(C, M) bool: boxes at most `gap` pixels apart along every axis; first, last: (A, C)."""
    other_first, other_last = others
    near = first[:, :, None] - other_last[:, None] <= gap
    return (near & (other_first[:, None] - last[:, :, None] <= gap)).all(0)
