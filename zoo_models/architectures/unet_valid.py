"""A U-Net of valid convolutions, and the wrapper that gives it an input-sized output.

One self-contained file that imports torch only: it is copied into every package, so that a network
can be read, rebuilt and checked without the project that trained it.

    image  (B, C, [Z,] Y, X)                                  output (B, D, [Z,] Y', X')
      |                                                                  ^
      local normalisation (optional, finite window)                1x1 head
      v                                                                  |
      block 0 ---- crop ---------------------------------> concat -> block
      |  pool                                                            ^ up
      v                                                                  |
      block 1 ---- crop -------------------> concat -> block ------------+
      |  pool                                            ^ up
      v                                                  |
      block 2 -------------------------------------------+

Valid convolutions invent nothing at borders, so the output is smaller than the input by a fixed
number of pixels per side (`shrink`), and fits only inputs whose size divides at every pooling.
`SameSizeUNet` takes sizes that are multiples of the period and returns an output of the input's
size; the `halo` pixels at its border hold zeros, and are what a consumer of tiles throws away.

Every crop and pad is made of plain integers fixed at construction, so a traced, scripted or
exported network is right at sizes it was never traced at.

Sources: Rumberger et al. 2021 (arXiv 2101.05846), section 3 and supplement; Ronneberger et al. 2015
(arXiv 1505.04597).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def _per_axis(value: int | list[int] | tuple[int, ...], ndim: int, name: str) -> list[int]:
    """One integer per axis, from one integer or a list of `ndim`."""
    values = [value] * ndim if isinstance(value, int) else [int(v) for v in value]
    if len(values) != ndim:
        raise ValueError(f"{name} has {len(values)} values, expected 1 or {ndim} (one per axis)")
    return values


def _pads(margin: list[int]) -> list[int]:
    """torch's padding list (last axis first, both sides) for `margin` pixels per side."""
    return [m for axis_margin in reversed(margin) for m in (axis_margin, axis_margin)]


class Pad(nn.Module):
    """Add zeros on both sides of each space axis, or crop where the margin is negative."""

    def __init__(self, margin: list[int]) -> None:
        super().__init__()
        self.pads = _pads(margin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded: torch.Tensor = F.pad(x, self.pads)
        return padded


class WindowSum(nn.Module):
    """Sums of `window` neighbours along one space axis, by doubling: 65 of them take 7 additions.

    A window of 5 = 4 + 1, over the values a b c d e f g::

        1   a        b        c
        2   ab       bc       cd     ...
        4   abcd     bcde     cdef   ...
        5   a+bcde   b+cdef   c+defg

    Every sum is made of the same additions in the same order, wherever its tile begins.

    (B, C, [Z,] Y, X) -> the same, `window - 1` smaller along `axis`. `window` is odd.
    """

    def __init__(self, window: int, axis: int, ndim: int) -> None:
        super().__init__()
        self.window = window
        self.axes_after = ndim - 1 - axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.crop(x, 0, self.window - 1)
        span, done = 1, 1
        while 2 * span <= self.window:
            x = self.crop(x, 0, span) + self.crop(x, span, 0)
            span *= 2
            if self.window & span:
                total = total + self.crop(x, done, self.window - done - span)
                done += span
        return total

    def crop(self, x: torch.Tensor, before: int, after: int) -> torch.Tensor:
        cropped: torch.Tensor = F.pad(x, [0, 0] * self.axes_after + [-before, -after])
        return cropped


class LocalNormalisation(nn.Module):
    """Contrast relative to the surroundings: (x - mean) / (std + floor), per channel.

    mean and std are those of a centred box of 2 * radius + 1 pixels, so a gain and an offset of the
    image cancel while tiles still agree: the window is finite and counts in the shrink. `floor`
    keeps flat regions flat instead of amplifying their noise; it is `relative * mean + absolute`,
    in units of the network's input.

    (B, C, [Z,] Y, X) -> (B, C, [Z-2r,] Y-2r, X-2r), float32 also under autocast.
    """

    def __init__(self, radius: list[int], relative: float, absolute: float) -> None:
        super().__init__()
        self.sums = nn.Sequential(
            *(WindowSum(2 * r + 1, axis, len(radius)) for axis, r in enumerate(radius) if r)
        )
        self.pixels = math.prod(2 * r + 1 for r in radius)
        self.crop = Pad([-r for r in radius])
        self.relative = relative
        self.absolute = absolute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        mean = self.sums(x) / self.pixels
        centred: torch.Tensor = self.crop(x) - mean
        variance = torch.clamp(self.sums(x * x) / self.pixels - mean * mean, min=0.0)
        contrast: torch.Tensor = torch.sqrt(variance) + self.relative * mean.abs() + self.absolute
        return centred / contrast


class Block(nn.Sequential):
    """`convolutions` valid convolutions, each with an optional batch norm and a ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: list[int],
        convolutions: int,
        norm: str,
    ) -> None:
        two_d = len(kernel) == 2
        convolution = nn.Conv2d if two_d else nn.Conv3d
        batch_norm = nn.BatchNorm2d if two_d else nn.BatchNorm3d
        layers: list[nn.Module] = []
        for i in range(convolutions):
            inputs = channels_in if i == 0 else channels_out
            size: Any = kernel
            layers.append(convolution(inputs, channels_out, size, bias=norm == "none"))
            if norm == "batch":  # small batches ask for a long memory
                layers.append(batch_norm(channels_out, momentum=0.02))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Up(nn.Module):
    """Enlarge by `factor`, crop the skip connection to match, concatenate."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        factor: list[int],
        crop: list[int],
        learnt: bool,
    ) -> None:
        super().__init__()
        two_d = len(factor) == 2
        if learnt:
            transposed = nn.ConvTranspose2d if two_d else nn.ConvTranspose3d
            size: Any = factor
            self.enlarge: nn.Module = transposed(channels_in, channels_out, size, stride=size)
        else:
            convolution = nn.Conv2d if two_d else nn.Conv3d
            self.enlarge = nn.Sequential(
                convolution(channels_in, channels_out, 1),
                nn.Upsample(scale_factor=tuple(float(f) for f in factor), mode="nearest"),
            )
        self.crop_skip = Pad([-c for c in crop])

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.crop_skip(skip), self.enlarge(x)], dim=1)


class UNetValid(nn.Module):
    """Valid-convolution U-Net in 2D or 3D.

    Args:
        ndim: 2 or 3 space axes.
        in_channels: channels of the image.
        embedding_dim: channels D of the output.
        width: feature maps on the finest level; `widths` doubles it per level up to `max_width`.
        levels: number of poolings l.
        factor: pooling factor f, one for all axes or one per axis (1 leaves an axis alone).
        kernel: width of the convolutions, odd, one for all axes or one per axis.
        convolutions: per block, 1 or 2.
        upsampling: "learnt" (transposed convolution, kernel = stride = f) or "nearest".
        norm: "none" or "batch". Group and instance norms would see the tile.
        local_radius: window radius of a local normalisation before the first block, 0 for none.
        local_floor: its floor (relative, absolute).

    Input (B, C, [Z,] Y, X) float32; output (B, D, [Z,] Y-2c, X-2c) float32, c = `shrink`.
    """

    def __init__(
        self,
        ndim: int = 2,
        in_channels: int = 1,
        embedding_dim: int = 16,
        width: int = 32,
        max_width: int = 256,
        levels: int = 3,
        factor: int | list[int] = 2,
        kernel: int | list[int] = 3,
        convolutions: int = 2,
        upsampling: str = "learnt",
        norm: str = "batch",
        local_radius: int | list[int] = 0,
        local_floor: tuple[float, float] = (0.1, 0.004),
    ) -> None:
        super().__init__()
        _refuse_unknown(ndim, convolutions, upsampling, norm)
        factors = _per_axis(factor, ndim, "factor")
        kernels = _per_axis(kernel, ndim, "kernel")
        radius = _per_axis(local_radius, ndim, "local_radius")
        if any(k < 1 or k % 2 == 0 for k in kernels):
            raise ValueError(f"kernel {kernels}: expected odd numbers")
        lost = [(k - 1) * convolutions for k in kernels]  # s, per block and axis
        axes = list(zip(lost, factors, radius, strict=True))
        self.period = [f**levels for f in factors]
        self.shrink = [
            s * (sum(f**i for i in range(levels + 1)) + sum(f**i for i in range(levels))) // 2 + r
            for s, f, r in axes
        ]
        # valid input sizes are those with this remainder modulo the period
        self.residue = [
            (s * sum(f**i for i in range(levels)) + 2 * r) % f**levels for s, f, r in axes
        ]

        self.normalise: nn.Module = nn.Identity()
        if any(radius):
            self.normalise = LocalNormalisation(radius, *local_floor)
        widths = [min(width * 2**level, max_width) for level in range(levels + 1)]
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            Block(i, o, kernel=kernels, convolutions=convolutions, norm=norm)
            for i, o in zip(inputs, widths, strict=True)
        )
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        self.pool = pool(tuple(factors))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        below = [0] * ndim  # pixels lost per side under this level, at this level's resolution
        for level in reversed(range(levels)):
            crop = [f * (b + s // 2) for f, b, s in zip(factors, below, lost, strict=True)]
            below = [c + s // 2 for c, s in zip(crop, lost, strict=True)]
            above, here = widths[level + 1], widths[level]
            learnt = upsampling == "learnt"
            self.up.append(Up(above, here, factor=factors, crop=crop, learnt=learnt))
            self.decoder.append(
                Block(2 * here, here, kernel=kernels, convolutions=convolutions, norm=norm)
            )
        head = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.head = head(widths[0], embedding_dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.normalise(x)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        depth = len(skips) - 2
        for i, (up, block) in enumerate(zip(self.up, self.decoder)):  # noqa: B905 (TorchScript)
            x = block(up(x, skips[depth - i]))
        embeddings: torch.Tensor = self.head(x)
        return embeddings.float()


class SameSizeUNet(nn.Module):
    """A `UNetValid` whose output has the input's size, for consumers that tile with a halo.

    Along each axis, for an input of T = n * period pixels::

        |  a |        c        |     kept: T - 2 halo      |        c        | a  |
        |<------- halo ------->|                           |<------- halo ------->|
           crop, valid network (loses c), crop b more, then put back zeros of width halo = a + c + b

    Takes the arguments of `UNetValid`. (B, C, [Z,] Y, X) -> (B, D, [Z,] Y, X), float32.
    """

    def __init__(self, **unet_valid: Any) -> None:
        super().__init__()
        self.valid = UNetValid(**unet_valid)
        period, shrink = self.valid.period, self.valid.shrink
        # the smallest even total that makes n * period a valid size, half of it per side
        cut = [-r % p for r, p in zip(self.valid.residue, period, strict=True)]
        before = [(t if t % 2 == 0 else t + p) // 2 for t, p in zip(cut, period, strict=True)]
        lost = list(zip(before, shrink, period, strict=True))
        self.halo = [-(-(a + c) // p) * p for a, c, p in lost]
        after = [h - a - c for h, (a, c, _) in zip(self.halo, lost, strict=True)]
        self.crop_before = Pad([-a for a in before])
        self.crop_after = Pad([-b for b in after])
        self.put_back = Pad(self.halo)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.crop_after(self.valid(self.crop_before(x)))
        same_size: torch.Tensor = self.put_back(inner)
        return same_size


def _refuse_unknown(ndim: int, convolutions: int, upsampling: str, norm: str) -> None:
    if ndim not in (2, 3):
        raise ValueError(f"ndim {ndim}: expected 2 or 3")
    if convolutions not in (1, 2):
        raise ValueError(f"convolutions {convolutions}: expected 1 or 2 per block")
    if upsampling not in ("learnt", "nearest"):
        raise ValueError(f"upsampling {upsampling!r}: expected 'learnt' or 'nearest'")
    if norm not in ("none", "batch"):
        raise ValueError(f"norm {norm!r}: expected 'none' or 'batch' (others see the tile)")
