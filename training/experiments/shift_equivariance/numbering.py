"""Lemma 1 by construction: a U-Net whose answer is the number of each pixel in its period window.

A transposed convolution with stride f writes f^d different weights side by side, so it can say
which of the f^d children of a coarse pixel a pixel is. One such digit per level is a number in base
f^d, for every pixel of the window of P = f^l pixels another one. Factor 2, two levels, one axis::

    level 2                  .                             constant 1, from a bias
    level 1          0               1                     digit * 1
    level 0      0       1       0       1                 digit * 2
    number       0       2       1       3                 all of 0 .. P - 1, once

The numbers do not depend on the image, so as many objects that look alike can be told apart as
there are numbers: P^d. Weights are small integers, so answers are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from zoo_models.architectures.unet_valid import UNetValid

CONSTANT, NUMBER = 0, 1
"""The two feature maps: a 1 that says where to add digits, and the number so far."""


def numbering_network(ndim: int, *, levels: int, factor: int | Sequence[int]) -> UNetValid:
    """A `UNetValid` with set weights: (1, 1, [Z,] Y, X) of any values -> (1, 1, ...) numbers."""
    factors = [factor] * ndim if isinstance(factor, int) else list(factor)
    network = UNetValid(
        ndim=ndim,
        embedding_dim=1,
        width=2,
        max_width=2,
        levels=levels,
        factor=factors,
        convolutions=1,
        norm="none",
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        bias = _last_convolution(network.encoder[-1]).bias
        assert bias is not None
        bias[CONSTANT] = 1
        for level, (up, block) in enumerate(zip(network.up, network.decoder, strict=True)):
            _write_digits(_last_convolution(up).weight, level)
            _pass_on(_last_convolution(block).weight, offset=2)  # behind the skipped maps
        network.head.weight[0, NUMBER] = 1
    return network.eval()


def _write_digits(weight: torch.Tensor, level: int) -> None:
    """weight: (maps in, maps out, f, ...); child i of a pixel gets the digit i of its level."""
    children = list(itertools.product(*map(range, weight.shape[2:])))
    for digit, child in enumerate(children):
        weight[(CONSTANT, CONSTANT, *child)] = 1
        weight[(NUMBER, NUMBER, *child)] = 1
        weight[(CONSTANT, NUMBER, *child)] = digit * len(children) ** level


def _pass_on(weight: torch.Tensor, *, offset: int) -> None:
    """weight: (maps out, maps in, k, ...); map m of the answer is map offset + m of the input."""
    middle = tuple(k // 2 for k in weight.shape[2:])
    for channel in (CONSTANT, NUMBER):
        weight[(channel, offset + channel, *middle)] = 1


def _last_convolution(block: nn.Module) -> nn.modules.conv._ConvNd:
    return [m for m in block.modules() if isinstance(m, nn.modules.conv._ConvNd)][-1]
