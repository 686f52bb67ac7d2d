"""Phase consistency: the network answers the same for an image and for the image shifted.

A U-Net commutes with shifts by multiples of its period P only; for others there is a jump. A
consumer that shifts or re-centres the last tile of an image whose size is off the period's grid
shows it. This term asks for the same embedding of the same pixel at every phase, 0 <= s < P along
every axis, not all zero. One axis of a patch, which is P - 1 pixels wider than the window W of the
network, whose answer is O = W - 2c pixels wide::

    patch    |<------------------ W ------------------>|<- P-1 ->|
    main     |    c    |<--------- O --------->|   c   |
    shifted  |  s |    c    |<--------- O --------->|   c   |
    compared                |<----- O - s ---->|

Both windows go through the network in one batch: in training, batch norm then uses the same
statistics for both, and what remains of the difference is the phase's.

No paper has this loss. Rumberger et al. 2021 (arXiv 2101.05846) show its price: a network has P^d
output functions to tell apart objects that look alike, one per phase, and without them it has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def reach(period: Sequence[int]) -> tuple[int, ...]:
    """Pixels per axis that a patch must be wider than the network's window: the largest shift."""
    return tuple(p - 1 for p in period)


def draw_shift(period: Sequence[int]) -> tuple[int, ...]:
    """One of the P^d - 1 shifts that are no multiples of the period, all equally likely.

    From torch's global generator. The period must be larger than 1 along an axis, or there is none.
    """
    number = int(torch.randint(1, math.prod(period), ()))
    shift = []
    for p in reversed(period):
        number, place = divmod(number, p)
        shift.append(place)
    return tuple(reversed(shift))


def with_shifted(patches: Tensor, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """The main windows of all patches, and as one sample more the first patch's shifted window.

    (B, C, window + reach) -> (B + 1, C, window). One shifted sample, since patches come in random
    order and a batch of B then costs 1/B more, not twice as much.
    """
    main = tuple(slice(0, w) for w in window)
    shifted = tuple(slice(s, s + w) for s, w in zip(shift, window, strict=True))
    return torch.cat([patches[:, :, *main], patches[:1, :, *shifted]])


def phase_consistency(main: Tensor, shifted: Tensor, shift: Sequence[int]) -> Tensor:
    """Mean over the common pixels of ||e_main - e_shifted||^2, a scalar; gradients reach both.

    main, shifted: the embeddings (D, [Z,] Y, X) of one patch's two windows, any float type,
    compared in float32.
    """
    common = tuple(slice(s, None) for s in shift)
    inside = tuple(slice(0, n - s) for n, s in zip(main.shape[1:], shift, strict=True))
    difference = main[:, *common].float() - shifted[:, *inside].float()
    squared: Tensor = (difference**2).sum(0)
    return squared.mean()
