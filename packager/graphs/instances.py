"""Image in, instances out, in one graph: the network tile by tile, then the clusterer, once.

A consumer that gives such a graph a whole image need not know about tiles, halos or periods: it
declares any size, step 1, no halo. The graph itself cuts the tiles that `predict` would cut, on the
period's grid, mirrors the image at its border, and stitches embeddings before it clusters them::

    image             0                                 S
    tile     |<- H ->|<------ kept ------>|<- H ->|
                              |<- H ->|<--- rest ---->|xxx<- H ->|     H: halo, x: mirrored, too
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from packager.graphs.basin_merging import BasinMergingGraph
from zoo_models.checkpoint import Checkpoint
from zoo_models.errors import ExportError
from zoo_models.geometry import TileGeometry
from zoo_models.prediction.engine import TILE_LIMIT


class InstancesGraph(nn.Module):
    """Image (B, C, [Z,] Y, X), every size from 1 pixel, -> labels (B, 1, [Z,] Y, X) float32.

    network: a traced network whose output has the input's size, (1, C, [Z,] Y, X) -> (1, D, ...).
        Traced, since libtorch 2.0 cannot load a scripted interpolation; around it all is scripted.
    clusterer: embeddings (1, D, [Z,] Y, X) -> labels (1, 1, [Z,] Y, X).
    tile_limit: largest tile edge; it bounds memory and changes nothing else.
    """

    def __init__(
        self,
        network: nn.Module,
        clusterer: nn.Module,
        geometry: TileGeometry,
        *,
        embedding_dim: int,
        tile_limit: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.clusterer = clusterer
        self.embedding_dim = embedding_dim
        self.halo = list(geometry.halo)
        self.minimum = list(geometry.minimum)
        self.step = list(geometry.step)
        self.kept = [a.kept(a.largest_tile(tile_limit)) for a in geometry.axes]

    def forward(self, x: Tensor) -> Tensor:
        images = x.detach().unbind(0)
        return torch.cat([self.clusterer(self.embed(image[None])) for image in images])

    def embed(self, image: Tensor) -> Tensor:
        """Embeddings (1, D, [Z,] Y, X) of an image (1, C, [Z,] Y, X)."""
        whole = list(image.shape)
        whole[1] = self.embedding_dim
        embeddings = torch.zeros(whole, device=image.device)
        size, number = whole[2:], 1
        for axis, kept in enumerate(self.kept):
            number *= (size[axis] + kept - 1) // kept
        for tile in range(number):
            start: list[int] = []
            width: list[int] = []
            for axis, kept in enumerate(self.kept):
                count = (size[axis] + kept - 1) // kept
                start.append(tile % count * kept)
                width.append(min(kept, size[axis] - start[axis]))
                tile = tile // count
            answer = self.network(self.mirrored(image, start, width))
            _window(embeddings, start, width).copy_(_window(answer, self.halo, width))
        return embeddings

    def mirrored(self, image: Tensor, start: list[int], width: list[int]) -> Tensor:
        """The smallest tile of the image that keeps `width` pixels from `start`, per axis.

        Beyond its border the image is mirrored, the border pixel twice, as often as needed.
        """
        for axis, halo in enumerate(self.halo):
            size, step, begin = image.shape[2 + axis], self.step[axis], start[axis] - halo
            missing = max(0, width[axis] + 2 * halo - self.minimum[axis])
            tile = self.minimum[axis] + (missing + step - 1) // step * step
            position = torch.arange(begin, begin + tile, device=image.device) % (2 * size)
            position = torch.minimum(position, 2 * size - 1 - position)
            image = image.index_select(2 + axis, position)
        return image


def _window(image: Tensor, start: list[int], width: list[int]) -> Tensor:
    """A view of the image (1, D, [Z,] Y, X): `width` pixels from `start`, per axis."""
    for axis in range(len(width)):
        image = image.narrow(2 + axis, start[axis], width[axis])
    return image


GRAPHS: dict[str, Callable[..., nn.Module]] = {"basin_merging": BasinMergingGraph}
"""Clusterer (file in `zoo_models.postprocessing`) -> its graph, which takes the same settings."""


def clusterer_graph(checkpoint: Checkpoint) -> nn.Module:
    """Embeddings (B, D, [Z,] Y, X) -> labels (B, 1, [Z,] Y, X) float32, in eval mode.

    Raises:
        ExportError: the checkpoint's clusterer has no graph.
    """
    choice = checkpoint.clusterer
    if choice.name not in GRAPHS:
        raise ExportError(
            f"The clusterer {choice.name!r} has no graph, expected {' or '.join(GRAPHS)}; export "
            "the kind 'embeddings', which needs none."
        )
    return GRAPHS[choice.name](**choice.settings).eval()


def instances_graph(checkpoint: Checkpoint) -> InstancesGraph:
    """Normalised image (B, C, [Z,] Y, X) -> labels (B, 1, [Z,] Y, X) float32, in eval mode.

    Raises:
        ExportError: the checkpoint's clusterer has no graph, or no tiles of its network agree.
    """
    if checkpoint.sees_whole_tiles:
        raise ExportError(
            "The network's group norm sees the whole tile, and this graph cuts large images into "
            "tiles, which would not agree; train with norm 'batch' or 'none'."
        )
    geometry = checkpoint.geometry
    example = torch.zeros(1, checkpoint.in_channels, *geometry.minimum)
    network = checkpoint.network().requires_grad_(False)
    traced: Any = torch.jit.trace(network, example, check_trace=False)
    return InstancesGraph(
        traced,
        clusterer_graph(checkpoint),
        geometry,
        embedding_dim=checkpoint.embedding_dim,
        tile_limit=TILE_LIMIT[geometry.ndim],
    ).eval()
