"""A U-Net of zero-padded convolutions: an answer for every pixel, right away from the border only.

One self-contained file that imports torch only: it is copied into every package, so that a network
can be read, rebuilt and checked without the project that trained it.

    image  (B, C, [Z,] Y, X)                              output (B, D, [Z,] Y, X)
      |                                                            ^
      v                                                         1x1 head
    block 0 ----------------------------------------> concat -> block
      |  pool                                            ^ enlarge, nearest
      v                                                  |
    block 1 ------------------------> concat -> block ---+
      |  pool                            ^ enlarge
      v                                  |
    block 2 -----------------------------+             block = 2 x [norm -> convolution -> ReLU]

Zeros are put around every convolution, so the output has the input's size and pixels near the
border were computed from invented ones. How far that goes along an axis, for a kept part that
starts on the grid of the period P: down the levels distances are rounded up to whole coarse pixels,
up again they are multiplied by the factor f::

    level 0   |<------------ radius ------------>|0 first kept pixel
    level 1        |<---- ceil(d / f) + b ---->|      b = kernel - 1: what one block looks further
    level 2              |<-- ... -->|

`halo` is the smallest multiple of P that covers it, and what a consumer of tiles throws away.

Sources: Wolny et al. 2022 (arXiv 2103.14572), supplement, tables 6 to 8; their published code
normalises before each convolution, and the first convolution of an encoder block makes half of the
block's feature maps, but no fewer than it gets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

GROUPS = 8
"""Groups of a group norm; one where there are fewer channels."""


def _per_axis(value: int | list[int] | tuple[int, ...], ndim: int, name: str) -> list[int]:
    """One integer per axis, from one integer or a list of `ndim`."""
    values = [value] * ndim if isinstance(value, int) else [int(v) for v in value]
    if len(values) != ndim:
        raise ValueError(f"{name} has {len(values)} values, expected 1 or {ndim} (one per axis)")
    return values


def _halo(kernel: int, factor: int, levels: int) -> int:
    """Pixels to throw away per side along one axis; see the figure above."""
    look, period = kernel - 1, int(factor**levels)
    radius = look
    for _ in range(levels):
        radius = -(-radius // factor) + look
    for _ in range(levels):
        radius = radius * factor + look
    return -(-radius // period) * period


class Block(nn.Sequential):
    """channels[0] -> channels[1] -> channels[2]: twice norm, zero-padded convolution, ReLU."""

    def __init__(self, channels: list[int], *, kernel: list[int], norm: str) -> None:
        convolution = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        padding: Any = [k // 2 for k in kernel]
        size: Any = kernel
        bias = norm == "none"
        layers: list[nn.Module] = []
        for i, o in ((channels[0], channels[1]), (channels[1], channels[2])):
            layers.append(_norm(norm, i, ndim=len(kernel)))
            layers.append(convolution(i, o, size, padding=padding, bias=bias))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


def _norm(norm: str, channels: int, *, ndim: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(GROUPS if channels >= GROUPS else 1, channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels) if ndim == 2 else nn.BatchNorm3d(channels)
    return nn.Identity()


class UNetSame(nn.Module):
    """Same-padded U-Net in 2D or 3D.

    Args:
        ndim: 2 or 3 space axes.
        in_channels: channels of the image.
        embedding_dim: channels D of the output.
        width: feature maps on the finest level, doubled per level up to `max_width`.
        levels: number of poolings l.
        factor: pooling factor f, one for all axes or one per axis (1 leaves an axis alone).
        kernel: width of the convolutions, odd, one for all axes or one per axis.
        norm: "none", "batch", or "group". A group norm sees the whole tile: no halo makes tiles
            agree, so it is for comparison only.

    Input (B, C, [Z,] Y, X) float32, every size a multiple of `period` = f^l;
    output (B, D, [Z,] Y, X) float32.
    """

    def __init__(
        self,
        ndim: int = 2,
        in_channels: int = 1,
        embedding_dim: int = 16,
        width: int = 16,
        max_width: int = 512,
        levels: int = 5,
        factor: int | list[int] = 2,
        kernel: int | list[int] = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        factors = _per_axis(factor, ndim, "factor")
        kernels = _per_axis(kernel, ndim, "kernel")
        _refuse_unknown(ndim, kernels, norm)
        self.period = [f**levels for f in factors]
        self.halo = [_halo(k, f, levels) for k, f in zip(kernels, factors, strict=True)]

        widths = [min(width * 2**level, max_width) for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            Block([i, max(o // 2, i), o], kernel=kernels, norm=norm)
            for i, o in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            Block([here + below, here, here], kernel=kernels, norm=norm)
            for here, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        self.pool = pool(tuple(factors))
        self.enlarge = nn.Upsample(scale_factor=tuple(float(f) for f in factors), mode="nearest")
        head = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.head = head(widths[0], embedding_dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = self.pool(x)
            x = block(x)  # (B, widths[level], [Z / f^level,] Y / f^level, X / f^level)
            skips.append(x)
        depth = len(skips) - 2
        for i, block in enumerate(self.decoder):
            x = block(torch.cat([skips[depth - i], self.enlarge(x)], dim=1))
        embeddings: torch.Tensor = self.head(x)
        return embeddings.float()


def _refuse_unknown(ndim: int, kernel: list[int], norm: str) -> None:
    if ndim not in (2, 3):
        raise ValueError(f"ndim {ndim}: expected 2 or 3")
    if any(k < 1 or k % 2 == 0 for k in kernel):
        raise ValueError(f"kernel {kernel}: expected odd numbers")
    if norm not in ("none", "batch", "group"):
        raise ValueError(f"norm {norm!r}: expected 'none', 'batch' or 'group'")
