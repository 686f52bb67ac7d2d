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
    """

    embeddings: Tensor
    index: Tensor
    counts: Tensor
    means: Tensor

    @classmethod
    def from_patch(cls, embeddings: Tensor, labels: Tensor) -> Instances:
        """From one sample: embeddings D(z)yx of any float type, labels (z)yx of any integer type.

        Every label is an instance, 0 (the background) too: this is full supervision.
        """
        flat = embeddings.flatten(1).float().T
        _, index, counts = torch.unique(labels.flatten(), return_inverse=True, return_counts=True)
        sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, index, flat)
        return cls(flat, index, counts.float(), sums / counts[:, None])

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
