"""Tiling of a same-padded U-Net: which pixels near a tile's border were computed from zeros.

The network pads every convolution with zeros, so it answers for every pixel of a tile, wrongly near
the tile's border. Its poolings lie on the grid of the tile, whatever the tile: unlike those of a
valid network (`geometry.ValidUNetAxis`), which shift with what is cropped. So a kept part that
starts on the grid looks further than the valid network of the same blocks shrinks: down the levels
a distance is rounded up to whole coarse pixels, l times, and up again multiplied by the factor::

    levels 2, kernel 3                                      0  first kept pixel, on the grid
    level 0, decoder                                    |-2-|
    level 1, decoder                              |-2-|-1---|          ceil(2 / 2) + 2 = 3
    level 2                                   |-2-|---2-----|          ceil(3 / 2) + 2 = 4
    level 1, encoder                 |-2-|--------8---------|
    level 0, encoder     |-2-|---------------20-------------|          radius 22, the shrink is 20

Integers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo_models.errors import GeometryError


@dataclass(frozen=True)
class SamePaddedUNetAxis:
    """Size arithmetic of `unet_same` along one axis: two convolutions per block on every level.

    Has the names of `geometry.ValidUNetAxis`, so that training and tiling need not tell them apart.
    """

    kernel: int
    levels: int
    factor: int

    shrink = 0
    """Pixels lost per side: none, the answer has the input's size."""
    crop_before = 0

    def __post_init__(self) -> None:
        problems = []
        if self.kernel < 1 or self.kernel % 2 == 0:
            problems.append(f"kernel {self.kernel} (must be odd: 1, 3, 5, ...)")
        if self.levels < 0:
            problems.append(f"levels {self.levels} (0 or more poolings)")
        if self.factor < 1:
            problems.append(f"factor {self.factor} (1 keeps the axis, 2 halves it)")
        if problems:
            raise GeometryError("This is no same-padded U-Net: " + "; ".join(problems) + ".")

    @property
    def period(self) -> int:
        """P = factor ** levels: the network commutes with shifts by multiples of P only."""
        return int(self.factor**self.levels)

    @property
    def radius(self) -> int:
        """Pixels per side that a kept part looks beyond itself, if it lies on the grid."""
        return self.radius_beyond(0)

    def radius_beyond(self, pixels: int) -> int:
        """How far answers up to `pixels` beyond such a kept part look, from its border."""
        block = self.kernel - 1
        distance = pixels + block
        for _ in range(self.levels):
            distance = math.ceil(distance / self.factor) + block
        for _ in range(self.levels):
            distance = distance * self.factor + block
        return distance

    @property
    def halo(self) -> int:
        """H, the smallest multiple of the period that covers the radius."""
        return math.ceil(self.radius / self.period) * self.period

    @property
    def smallest_input(self) -> int:
        return self.period

    def is_valid_input(self, size: int) -> bool:
        """Sizes are multiples of the period: others do not fit when halves are joined again."""
        return size >= self.period and size % self.period == 0
