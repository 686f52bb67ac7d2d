"""Small networks whose tiling faults are easy to see, and one pass over the whole image."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from packager.consumers.placement import Padding, Placement
from packager.consumers.stitch import Array, Stitched, read_padded
from zoo_models.architectures.unet_valid import SameSizeUNet
from zoo_models.geometry import Box

EXACT = 1e-4
"""Standard deviations of the whole pass: rounding stays far below, another phase far above."""


class Toy:
    """A random U-Net of `levels` poolings by 2 with blocks of two 3x3 convolutions.

    `valid` answers `shrink` pixels less per side; `centred` puts that answer back in the middle of
    zeros, so it takes the same inputs; `wrapped` is the wrapper that packages ship, which takes
    multiples of the period and has a margin of `halo`.
    """

    def __init__(self, levels: int) -> None:
        torch.manual_seed(levels)
        self.network = SameSizeUNet(levels=levels, width=4, embedding_dim=2, norm="none").eval()
        for part in self.network.modules():  # so that the coarse levels weigh as much as the fine
            if isinstance(part, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        self.period: int = self.network.valid.period[0]
        self.shrink: int = self.network.valid.shrink[0]
        self.residue: int = self.network.valid.residue[0]

    def valid(self, raw: Array) -> Array:
        return self._run(self.network.valid, raw)

    def wrapped(self, raw: Array) -> Array:
        return self._run(self.network, raw)

    def centred(self, raw: Array) -> Array:
        margin = (self.shrink, self.shrink)
        return np.pad(self.valid(raw), [(0, 0), margin, margin])

    def _run(self, network: torch.nn.Module, raw: Array) -> Array:
        with torch.no_grad():
            answer: Array = network(torch.from_numpy(raw)[None])[0].numpy()
        return answer

    def whole(self, image: Array, padding: Padding, *, start: int | None = None) -> Array:
        """One pass of the valid network over the mirrored image, read from `start` on each axis.

        `start` says which of the network's phases is the reference; the default is that of a
        `wrapped` whose tiles start at multiples of the period::

            start       0                       S
            |-----------|-----------------------|------|     up to the next valid size
            |<-  c  ->|<--------- answered -------->|<c>|
        """
        shape = image.shape[1:]
        if start is None:
            start = -self.network.crop_before.pads[0] - self.network.halo[0]
        sizes = [n - start + self.shrink for n in shape]
        sizes = [n + (self.residue - n) % self.period for n in sizes]
        read = Box((start,) * len(shape), tuple(start + n for n in sizes))
        answer = self.valid(read_padded(image, read, padding))
        return answer[:, *Box.of_shape(shape).shift([-start - self.shrink] * len(shape)).slices]


def noise(shape: tuple[int, ...]) -> Array:
    """An image c(z)yx of one channel, no two places of which look alike."""
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


def distance(stitched: Array, expected: Array) -> NDArray[np.float64]:
    """Per pixel the largest difference, in standard deviations; infinite where none was written."""
    gap = np.abs(stitched.astype(np.float64) - expected).max(axis=0) / expected.std()
    return np.nan_to_num(gap, nan=np.inf)


def wrong_tiles(placement: Placement, stitched: Stitched, expected: Array) -> list[int]:
    """The numbers of the tiles that were written, and are not exact."""
    gap = distance(stitched.output, expected)
    return [
        i
        for i, tile in enumerate(placement)
        if i not in stitched.failed and gap[tile.write.slices].max() > EXACT
    ]


@pytest.fixture(scope="session")
def toy() -> Callable[[int], Toy]:
    """Toy networks by their number of poolings."""
    return lru_cache(Toy)
