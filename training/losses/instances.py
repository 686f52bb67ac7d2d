"""The instances of one patch, as flat tensors that every loss term shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.neighbourhood import Neighbourhood


@dataclass(frozen=True)
class Instances:
    """C instances over N pixels, and M pixels of which nothing is known.

    Attributes:
        embeddings: (N, D) float32.
        index: (N,) int64, which instance each pixel belongs to, 0..C-1.
        counts: (C,) float32, pixels per instance.
        means: (C, D) float32, mean embedding per instance.
        neighbourhood: which instances and unlabeled pixels are compared; None: all with all.
        unlabeled: (M, D) float32, the pixels of no known instance; None under full supervision.
        unlabeled_places: (M,) int64, where they lie in the flat patch; None under full supervision.
    """

    embeddings: Tensor
    index: Tensor
    counts: Tensor
    means: Tensor
    neighbourhood: Neighbourhood | None = None
    unlabeled: Tensor | None = None
    unlabeled_places: Tensor | None = None

    @classmethod
    def from_patch(
        cls,
        embeddings: Tensor,
        labels: Tensor,
        *,
        neighbourhood: int | None = None,
        unlabeled: int | None = None,
        ignore: int | None = None,
    ) -> Instances:
        """From one sample: embeddings D(z)yx of any float type, labels (z)yx of any integer type.

        Every label is an instance, 0 (the background) too: this is full supervision. Under sparse
        supervision the label `unlabeled` is none, and there may be no instance at all. Pixels of
        the label `ignore` are left out, as if the patch had not had them.
        `neighbourhood`: largest gap in pixels, along any axis, between the bounding boxes of two
        instances that are near; None: all are near.
        """
        flat, ids = embeddings.flatten(1).float().T, labels.flatten()
        places = rest = None
        if unlabeled is not None:
            rest = (ids == unlabeled).nonzero()[:, 0]
        if unlabeled is not None or ignore is not None:
            places = _without(ids, unlabeled, ignore).nonzero()[:, 0]
            known, ids = flat.index_select(0, places), ids[places]
        else:
            known = flat
        _, index, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, index, known)
        near = None
        if neighbourhood is not None:
            where = torch.arange(len(ids), device=ids.device) if places is None else places
            near = Neighbourhood.around(
                where, index, len(counts), shape=labels.shape, gap=neighbourhood
            )
        unknown = None if rest is None else flat.index_select(0, rest)
        return cls(known, index, counts.float(), sums / counts[:, None], near, unknown, rest)

    def near(self) -> Tensor:
        """(C, C) bool: which pairs of instances are compared."""
        if self.neighbourhood is not None:
            return self.neighbourhood.pairs()
        return self.counts.new_ones(len(self.counts), len(self.counts), dtype=torch.bool)

    def random_pixels(self) -> Tensor:
        """One pixel of each instance, uniformly drawn: (C,) int64 indices into the N pixels.

        Pixels are shuffled; the first of each instance is the draw.
        """
        shuffled = torch.randperm(len(self.index), device=self.index.device)
        rank = torch.arange(len(shuffled), device=shuffled.device)
        first = rank.new_full(self.counts.shape, len(shuffled))
        first = first.scatter_reduce(0, self.index[shuffled], rank, "amin")
        return shuffled[first]


def mean_or_zero(values: Tensor) -> Tensor:
    """The mean, and of no values a 0 that still belongs to the graph."""
    return values.mean() if len(values) else values.sum()


def _without(ids: Tensor, *labels: int | None) -> Tensor:
    """(N,) bool: pixels of none of these labels."""
    left = torch.ones_like(ids, dtype=torch.bool)
    for label in labels:
        if label is not None:
            left &= ids != label
    return left
