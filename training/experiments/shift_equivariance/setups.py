"""One network and how it is trained: a value that says all, with the paper's numbers as default.

One axis of what a training step sees, for valid convolutions that lose c pixels per side::

    picture   ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~   no end on either side
    read      |<-- 0..shifts -->|----c----|<- answer ->|----c----|
    answered                              |<-window->|..|           .. cut off before the loss
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from training.experiments.shift_equivariance.pictures import Picture
from training.losses.combined import EmbeddingLoss
from zoo_models.checkpoint import network_axes
from zoo_models.geometry import NetworkAxis

DELTA_D = 3.0
"""Margin of the push term: means of two instances are to be 2 * 3 apart (the paper's value)."""

MARGINS = EmbeddingLoss(
    delta_v=0.0, delta_d=DELTA_D, object_weight=0.0, regulariser_weight=1e-4, ignore=-1
)
"""The paper's loss; the background is an instance. Pixels labelled -1 are left out."""


@dataclass(frozen=True)
class Setup:
    """How one network is trained on one picture, batch 1.

    Attributes:
        name: of its folder.
        picture: what it sees.
        levels: poolings by two; the period is 2 ** levels.
        upsampling: "learnt" (transposed convolution) or "nearest" (fixed).
        window: pixels per side of the answer that the loss sees, w.
        steps, lr: of Adam.
        width: feature maps on the finest level, doubled per level.
        shifts: the window begins at a random one of these first pixels of the picture, per axis.
        cells: only the first cells x cells instances count, the rest is left out; 0: all count.
        noise: standard deviation of Gaussian noise, drawn anew in each step.
        elastic: the picture is bent anew in each step.
        padding: "valid", or "same": zero-padded convolutions, the window is all that is read.
    """

    name: str
    picture: Picture
    levels: int
    upsampling: Literal["learnt", "nearest"]
    window: int
    steps: int
    lr: float
    width: int = 16
    shifts: int = 1
    cells: int = 0
    noise: float = 0.0
    elastic: bool = False
    padding: Literal["valid", "same"] = "valid"

    @property
    def architecture(self) -> str:
        return f"unet_{self.padding}"

    @property
    def kwargs(self) -> dict[str, Any]:
        """The network's arguments, as a checkpoint keeps them."""
        shared: dict[str, Any] = {
            "ndim": 2,
            "in_channels": 1,
            "embedding_dim": 3,
            "width": self.width,
            "max_width": 1024,
            "levels": self.levels,
            "factor": 2,
            "kernel": 3,
            "norm": "none",
        }
        if self.padding == "same":
            return shared
        return {**shared, "convolutions": 2, "upsampling": self.upsampling, "local_radius": 0}

    @property
    def axis(self) -> NetworkAxis:
        """Size arithmetic along either axis."""
        return network_axes(self.architecture, self.kwargs)[0]

    @property
    def period(self) -> int:
        return self.axis.period

    @property
    def read(self) -> int:
        """Pixels per side of the smallest input whose answer holds the window."""
        return smallest_read(self.axis, self.window)


def smallest_read(axis: NetworkAxis, window: int) -> int:
    """Pixels of the smallest valid input whose answer is at least `window` pixels wide."""
    size = max(axis.smallest_input, window + 2 * axis.shrink)
    while not axis.is_valid_input(size):
        size += 1
    return size
