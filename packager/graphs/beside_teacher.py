"""Two networks on one image, their answers stacked along the channels.

    image (B, C, [Z,] Y, X) --+--> network f --> (B, D, [Z,] Y, X) --+--> (B, 2 D, [Z,] Y, X)
                              |                                      |    first f's, then g's
                              +--> teacher g --> (B, D, [Z,] Y, X) --+

Both have one architecture, and so one period, one halo and one shrink: what tiles the network tiles
the pair. Stacked channels need no second output, which not every consumer would tile.
"""

from __future__ import annotations

import torch
from torch import nn

from zoo_models.checkpoint import Checkpoint


class BesideTeacher(nn.Module):
    """(B, C, [Z,] Y, X) -> (B, 2 D, [Z,] Y, X) float32: the network's D channels, the teacher's."""

    def __init__(self, network: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.network(image), self.teacher(image)], dim=1)


def beside_teacher(checkpoint: Checkpoint) -> BesideTeacher:
    """The network of a checkpoint and the teacher it was trained with, in eval mode.

    Raises:
        CheckpointError: the checkpoint holds no teacher.
    """
    pair = BesideTeacher(checkpoint.network(), checkpoint.teacher_network())
    pair.eval()
    return pair
