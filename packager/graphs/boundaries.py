"""Foreground and boundary maps, computed from the embeddings inside the exported graph.

Two channels in 0..1 are what ilastik's Multicut workflow and a watershed take, and 16 embeddings in
3D are more than ilastik may send in one message. Around a pixel the embeddings on either side of it
are compared, so the maps lose `reach` pixels more per side than the network; they are lost inside
the halo, before the margin is put back (a network of padded convolutions has a = c = 0)::

    0                                                                    T  tile
    |  a |   c   | reach | b |<------------- kept ------------->| b | reach |   c   | a  |
    |<-------- halo -------->|     a: cropped, c: shrink        |<-------- halo -------->|
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from zoo_models.architectures.unet_valid import Pad
from zoo_models.checkpoint import Checkpoint, answering_part, network_axes
from zoo_models.errors import ExportError
from zoo_models.geometry import TileGeometry
from zoo_models.postprocessing import build_clusterer

REACH = 2
"""Pixels to either side that are compared: boundaries in images are blurred over about four."""

Crops = tuple[list[int], list[int]]
"""Pixels cut per side and axis before and after the network."""


class Boundaries(nn.Module):
    """Embeddings (B, D, [Z,] Y, X) -> (B, 2, [Z-2r,] Y-2r, X-2r): foreground, boundary; r = reach.

    foreground: 0..1 over the width of the gap that training leaves between two instances,
        2 (delta_d - delta_v), and one half at `radius` from the background's embedding. With a
        `spread` W both are distances ||W (e - background)||, as in `BasinMerging`: `radius` is
        given as one, and the gap is stretched as W stretches, in the mean over all directions.
    boundary: the largest distance between the embeddings at +o and -o, over all axes and
        o = 1..reach; 0 up to 2 delta_v, the width of an instance, 1 from 2 delta_d on.
    """

    def __init__(
        self,
        background: list[float],
        *,
        ndim: int,
        radius: float,
        delta_v: float,
        delta_d: float,
        spread: list[float] | None = None,
        reach: int = REACH,
    ) -> None:
        super().__init__()
        place = torch.tensor(background).reshape(1, -1, *[1] * ndim)
        self.background: torch.Tensor
        self.register_buffer("background", place)
        self.radius = radius
        self.within, self.gap = 2 * delta_v, 2 * (delta_d - delta_v)
        self.spread: torch.Tensor | None
        self.register_buffer("spread", None)
        self.stretch = 1.0
        if spread:
            matrix = torch.tensor(spread, dtype=torch.float32)
            self.spread = matrix.reshape(len(background), -1, *[1] * ndim)
            self.stretch = math.sqrt(sum(w * w for w in spread) / len(background))
        self.centre = [-reach] * (2 * ndim)
        self.pairs = [
            (_moved(self.centre, axis, o), _moved(self.centre, axis, -o))
            for axis in range(ndim)
            for o in range(1, reach + 1)
        ]

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        from_place = F.pad(embeddings, self.centre) - self.background
        if self.spread is not None:
            apply = F.conv3d if self.spread.dim() == 5 else F.conv2d
            from_place = apply(from_place, self.spread)
        gap = self.gap * self.stretch
        foreground = torch.clamp((_length(from_place) - self.radius) / gap + 0.5, 0.0, 1.0)
        steepest = torch.zeros_like(foreground)
        for ahead, behind in self.pairs:
            step = _length(F.pad(embeddings, ahead) - F.pad(embeddings, behind))
            steepest = torch.maximum(steepest, step)
        boundary = torch.clamp((steepest - self.within) / self.gap, 0.0, 1.0)
        return torch.cat([foreground, boundary], dim=1)


class BoundariesGraph(nn.Module):
    """Same-size network and `Boundaries`: (B, C, [Z,] Y, X) -> (B, 2, [Z,] Y, X), margin zero."""

    def __init__(self, network: nn.Module, boundaries: Boundaries, crops: Crops, halo: list[int]):
        super().__init__()
        before, after = crops
        self.crop_before = Pad([-c for c in before])
        self.answer = answering_part(network)
        self.boundaries = boundaries
        self.crop_after = Pad([-c for c in after])
        self.put_back = Pad(halo)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.boundaries(self.answer(self.crop_before(x)))
        same_size: torch.Tensor = self.put_back(self.crop_after(maps))
        return same_size


def boundaries_graph(checkpoint: Checkpoint) -> tuple[nn.Module, TileGeometry]:
    """The graph in eval mode, and its universal declaration: the stencil is part of the shrink.

    Raises:
        ExportError: the place of the background in embedding space is not known.
    """
    clusterer = build_clusterer(checkpoint.clusterer)
    background = getattr(clusterer, "background", ())
    if not background:
        raise ExportError(
            "The checkpoint does not know the embedding of the background (clusterer setting "
            "`background`), from which foreground is told; train on images that have one."
        )
    axes = network_axes(checkpoint.architecture, checkpoint.kwargs)
    radius = [n.radius_beyond(REACH) for n in axes]
    halo = [
        math.ceil((n.crop_before + r) / n.period) * n.period
        for n, r in zip(axes, radius, strict=True)
    ]
    periods = [n.period for n in axes]
    geometry = TileGeometry.universal(list(zip(periods, radius, halo, strict=True)))
    maps = Boundaries(
        list(background),
        ndim=len(axes),
        radius=float(getattr(clusterer, "radius", checkpoint.delta_d)),
        delta_v=checkpoint.delta_v,
        delta_d=checkpoint.delta_d,
        spread=list(getattr(clusterer, "spread", ())),
    )
    before = [n.crop_before for n in axes]
    after = [h - n.crop_before - n.shrink - REACH for h, n in zip(halo, axes, strict=True)]
    return BoundariesGraph(checkpoint.network(), maps, (before, after), halo).eval(), geometry


def _moved(centre: list[int], axis: int, offset: int) -> list[int]:
    """torch's pad list (last axis first) that crops a window `offset` pixels along `axis`."""
    pads = list(centre)
    before = len(centre) - 2 - 2 * axis
    pads[before] -= offset
    pads[before + 1] += offset
    return pads


def _length(vectors: torch.Tensor) -> torch.Tensor:
    return torch.sqrt((vectors * vectors).sum(1, keepdim=True))
