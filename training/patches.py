"""Random training patches, each drawn from its own seed, so that a resumed run sees the same ones.

What the valid network reads is larger than what it answers for, so images are mirrored at their
borders, as tiles are in prediction (a network that pads by itself has a shrink of 0)::

    |<-------------- input: output + 2 shrink --------------->|
    |   shrink   |<--------- output: compared ---->|  shrink  |

The phase term (losses/phase_consistency.py) also looks at shifted windows: with it, patches are
wider at their end by `reach` pixels, the largest shift.

The consistency term (losses/consistency.py) compares two views: with it, a patch has two images of
the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from training.augmentation import OneView, TwoViews
from training.config import TrainingConfig
from training.datasets import Sample


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patch i: image (C, input + reach) float32 and labels (output) int64, the same for the same i.

    Labels are numbered anew, only 0 stays 0. With a teacher: two views (2, C, input + reach).

    An image is drawn with a probability in proportion to the square root of its size, then one of
    its instances, and a window that holds a pixel of it. Under sparse supervision images without a
    labeled instance are not drawn; under full supervision their background is one to learn. So it
    is with a pseudo-background, but at least half of the patches are of images with an object.
    """

    def __init__(self, samples: Sequence[Sample], config: TrainingConfig) -> None:
        self.seed = config.seed
        self.output = config.output_shape
        self.shrink = tuple(axis.shrink for axis in config.network_axes)
        augment = TwoViews if config.with_teacher else OneView
        self.augment = augment(config.augmentation, ndim=config.ndim)
        self.reach = config.patch_reach
        self.samples = [_mirrored(s, self.shrink, self.output, reach=self.reach) for s in samples]
        inside = (labels[self._inside(labels)] for _, labels in self.samples)
        self.instances = [np.unique(ids[ids > 0]) for ids in inside]
        drawn = [bool(s.labels.any()) or not config.sparse for s in samples]
        sizes = np.sqrt([s.labels.size * d for s, d in zip(samples, drawn, strict=True)])
        self.probabilities = sizes / sizes.sum()
        if config.pseudo_background:
            objects = np.array([ids.size > 1 for ids in self.instances])
            self.probabilities = at_least_half(self.probabilities, objects)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = np.random.default_rng([self.seed, number])
        drawn = draw.choice(len(self.samples), p=self.probabilities)
        image, labels = self.samples[drawn]
        start = self._window(labels, self.instances[drawn], draw)
        stop = [a + n for a, n in zip(start, self._width, strict=True)]
        window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        ids = np.searchsorted(np.union1d([0], labels[window]), labels[window])
        pixels, instances = self.augment(
            np.ascontiguousarray(image[:, *window]),
            ids.astype(np.float32),
            seed=int(draw.integers(2**31)),
        )
        inner = tuple(slice(c, c + w) for c, w in zip(self.shrink, self.output, strict=True))
        return pixels, instances[inner]

    @property
    def _width(self) -> tuple[int, ...]:
        sizes = zip(self.output, self.shrink, self.reach, strict=True)
        return tuple(w + 2 * c + r for w, c, r in sizes)

    def _inside(self, labels: NDArray[np.int32]) -> tuple[slice, ...]:
        """The image itself, without what mirroring added."""
        return tuple(
            slice(c, n - c - r)
            for n, c, r in zip(labels.shape, self.shrink, self.reach, strict=True)
        )

    def _window(
        self, labels: NDArray[np.int32], instances: NDArray[np.int32], draw: np.random.Generator
    ) -> list[int]:
        """Start of the input window in the mirrored image; its output lies inside the image."""
        last = [n - w for n, w in zip(labels.shape, self._width, strict=True)]
        if instances.size == 0:
            return [int(draw.integers(n + 1)) for n in last]
        places = np.argwhere(labels[self._inside(labels)] == draw.choice(instances))
        place = places[draw.integers(len(places))]
        return [
            int(np.clip(p - draw.integers(w), 0, n))
            for p, w, n in zip(place, self.output, last, strict=True)
        ]


def at_least_half(
    probabilities: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Probabilities in the same proportions, but with a sum of 0.5 over `chosen` where it was less;
    unchanged where none is."""
    share = probabilities[chosen].sum()
    if share == 0 or share >= 0.5:
        return probabilities
    halves: NDArray[np.float64] = np.where(chosen, 0.5 / share, 0.5 / (1 - share)) * probabilities
    return halves


def _mirrored(
    sample: Sample, shrink: tuple[int, ...], output: tuple[int, ...], *, reach: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Image and labels with mirrored pixels at their borders, and at least one output window.

    Per side `shrink` pixels, and `reach` more at the end.

    A mirrored instance that does not touch the border is another object: it gets another id.
    """
    shape = sample.labels.shape
    extra = [max(0, w - n) for n, w in zip(shape, output, strict=True)]
    margin = [(c, c + e + r) for c, e, r in zip(shrink, extra, reach, strict=True)]
    image = np.pad(sample.image, [(0, 0), *margin], mode="symmetric")
    labels = np.pad(sample.labels, margin, mode="symmetric")
    side = np.zeros(labels.shape, np.int32)
    on_border = np.zeros(shape, bool)
    for axis, (n, (before, _)) in enumerate(zip(shape, margin, strict=True)):
        position = np.arange(labels.shape[axis]) - before
        part = np.where(position < 0, 1, np.where(position >= n, 2, 0)) * 3**axis
        side += np.expand_dims(part, [a for a in range(len(shape)) if a != axis]).astype(np.int32)
        edge = np.moveaxis(on_border, axis, 0)
        edge[0] = edge[-1] = True
    touching = np.isin(labels, np.unique(sample.labels[on_border]))
    copies = (side > 0) & (labels > 0) & ~touching
    labels[copies] += side[copies] * (int(labels.max()) + 1)
    return image, labels


class EpochSampler(Sampler[int]):
    """Patch numbers, n per epoch and process, counted on from `start`: none comes twice in a run.

    A resumed run starts at its optimiser step times the batch size. With several processes (one per
    GPU) each takes its own n of every epoch's numbers.
    """

    def __init__(self, patches_per_epoch: int, *, start: int = 0) -> None:
        self.patches = patches_per_epoch
        self.start = start

    def __iter__(self) -> Iterator[int]:
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if shared else 0
        processes = torch.distributed.get_world_size() if shared else 1
        first = self.start * processes + rank * self.patches
        self.start += self.patches
        return iter(range(first, first + self.patches))

    def __len__(self) -> int:
        return self.patches
