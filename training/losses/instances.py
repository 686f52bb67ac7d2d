"""The instances of one patch, as flat tensors that every loss term shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instances:
    """C instances over N pixels.

    Attributes:
        embeddings: (N, D) float32.
        index: (N,) int64, which instance each pixel belongs to, 0..C-1.
        counts: (C,) float32, pixels per instance.
        means: (C, D) float32, mean embedding per instance.
        near: (C, C) bool, which pairs are compared: all, or those whose bounding boxes are close.
    """

    embeddings: Tensor
    index: Tensor
    counts: Tensor
    means: Tensor
    near: Tensor

    @classmethod
    def from_patch(
        cls, embeddings: Tensor, labels: Tensor, *, neighbourhood: int | None = None
    ) -> Instances:
        """From one sample: embeddings D(z)yx of any float type, labels (z)yx of any integer type.

        Every label is an instance, 0 (the background) too: this is full supervision.
        `neighbourhood`: largest gap in pixels, along any axis, between the bounding boxes of two
        instances that are near; None: all are near.
        """
        flat = embeddings.flatten(1).float().T
        _, index, counts = torch.unique(labels.flatten(), return_inverse=True, return_counts=True)
        sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, index, flat)
        near = torch.ones(len(counts), len(counts), dtype=torch.bool, device=flat.device)
        if neighbourhood is not None:
            near = _close_boxes(labels.shape, index, len(counts), neighbourhood)
        return cls(flat, index, counts.float(), sums / counts[:, None], near)

    def average(self, per_pixel: Tensor) -> Tensor:
        """1/C sum_k 1/N_k sum_{i in k} of a value (N,) per pixel."""
        sums = per_pixel.new_zeros(len(self.counts)).index_add(0, self.index, per_pixel)
        return (sums / self.counts).mean()

    def random_pixels(self) -> Tensor:
        """One pixel of each instance, uniformly drawn: (C,) int64 indices into the N pixels.

        Pixels are shuffled, then sorted (stably) by instance; the first of each run is the draw.
        """
        shuffled = torch.randperm(len(self.index), device=self.index.device)
        by_instance = shuffled[torch.argsort(self.index[shuffled], stable=True)]
        first = torch.cumsum(self.counts.long(), 0) - self.counts.long()
        return by_instance[first]


def _close_boxes(shape: torch.Size, index: Tensor, number: int, gap: int) -> Tensor:
    """(C, C) bool: bounding boxes at most `gap` pixels apart along every axis."""
    near = torch.ones(number, number, dtype=torch.bool, device=index.device)
    for axis, size in enumerate(shape):
        view = [-1 if a == axis else 1 for a in range(len(shape))]
        place = torch.arange(size, device=index.device).reshape(view).expand(shape).flatten()
        first = torch.full((number,), size, device=index.device)
        first = first.scatter_reduce(0, index, place, "amin")
        last = torch.zeros_like(first).scatter_reduce(0, index, place, "amax")
        near &= first[:, None] - last[None] <= gap
        near &= first[None] - last[:, None] <= gap
    return near
