"""How many things a network makes of what looks alike: output functions, ids, instances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import nn

from zoo_models.architectures.unet_valid import UNetValid

Vectors = NDArray[np.float64]

ROUNDING = 1e-5
"""Vectors nearer than this part of their spread are one: what is left is float32."""


IMAGES = 6
"""Noise images in which one pixel is looked at: a ReLU can hide a function in one of them."""


def groups(vectors: Vectors, distance: float) -> int:
    """Number of groups of vectors (n, D): those within `distance` are one, also over others."""
    pairs = cKDTree(vectors).query_pairs(distance, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), (len(vectors),) * 2)
    return int(connected_components(graph, directed=False)[0])


def different(vectors: Vectors, spread: float | None = None) -> int:
    """Number of different vectors (n, D), but for rounding, in units of `spread`.

    spread: standard deviation of what they come from; by default their own. Vectors without any
    are one.
    """
    spread = float(vectors.std(axis=0).max()) if spread is None else spread
    return groups(vectors, ROUNDING * spread) if spread > 0 else 1


def most_instances(period: Sequence[int], spacing: Sequence[int]) -> int:
    """Instances that look alike, `spacing` apart, that can be told apart: a multiple of the period
    apart is the same phase, so per axis there are P / gcd(P, spacing)."""
    return math.prod(p // math.gcd(p, s) for p, s in zip(period, spacing, strict=True))


def random_network(ndim: int, *, levels: int, factor: int, upsampling: str, seed: int) -> UNetValid:
    """A small network with random weights that keep the signal's size; double precision inside."""
    torch.manual_seed(seed)
    network = UNetValid(
        ndim=ndim,
        embedding_dim=4,
        width=8,
        max_width=8,
        levels=levels,
        factor=factor,
        convolutions=1,
        upsampling=upsampling,
        norm="none",
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            fan = module.in_channels * (
                math.prod(module.kernel_size) if module.stride[0] == 1 else 1
            )
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
    return network.double().eval()


def output_functions(network: UNetValid, *, seed: int = 0) -> int:
    """Relative-distinct output functions, counted: what one pixel can get, wherever tiles begin.

    One pixel of some noise images is answered in windows that begin at 2P places per axis. It has
    the same surroundings in all of them, and only its place in the window differs::

        image     ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~*~~~~~~~~~~~~~~~~~~~~~~~~~~   *  the pixel
        windows        |-------------------------*---------|                   place 2P - 1
                        |------------------------*----------|                  place 2P - 2 ...
                                    ... |--------*--------------------------|  place 0
    """
    reach = [2 * p for p in network.period]
    size = smallest_input(network, reach)
    shape = [n + r - 1 for n, r in zip(size, reach, strict=True)]
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.standard_normal((IMAGES, 1, *shape)))
    answers = []
    with torch.inference_mode():
        for start in itertools.product(*map(range, reach)):
            window = images[:, :, *(slice(a, a + n) for a, n in zip(start, size, strict=True))]
            place = tuple(r - 1 - a for a, r in zip(start, reach, strict=True))
            answers.append(network(window)[(slice(None), slice(None), *place)].flatten().numpy())
    return different(np.stack(answers).astype(np.float64))


def ids_in_window(answer: NDArray[np.float32], period: Sequence[int]) -> Vectors:
    """The answers (n, D) of the first period window of an answer D(z)yx."""
    window = answer[:, *(slice(0, p) for p in period)]
    return np.asarray(window.reshape(len(window), -1).T, np.float64)


def answer_to(network: nn.Module, image: NDArray[np.floating]) -> NDArray[np.float32]:
    """One pass: c(z)yx -> D(z)yx float32, in the network's own precision."""
    parameter = next(network.parameters())
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image))[None].to(parameter)
        return np.asarray(network(pixels)[0].float().cpu().numpy())


def smallest_input(network: UNetValid, answered: Sequence[int]) -> list[int]:
    """Per axis the smallest valid input with at least so many pixels answered."""
    least = [n + 2 * c for n, c in zip(answered, network.shrink, strict=True)]
    return [n + (r - n) % p for n, r, p in zip(least, network.residue, network.period, strict=True)]
