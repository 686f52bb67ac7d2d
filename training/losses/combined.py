"""The two training losses: discriminative (De Brabandere et al. 2017) and SPOCO's L_SO (Eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.instance_selection import object_dice
from training.losses.instances import Instances
from training.losses.pull import pull
from training.losses.push import push
from training.losses.regulariser import regulariser


@dataclass(frozen=True)
class EmbeddingLoss:
    """alpha pull + beta push + lambda object + gamma regulariser; lambda 0: discriminative loss.

    `neighbourhood` None is the papers' definition: every instance is compared with every other. A
    number of pixels compares only instances whose bounding boxes are at most so far apart: distant
    ones that look alike cannot all have different embeddings (Rumberger et al. 2021), and need not,
    since clustering joins touching pixels only.
    """

    delta_v: float = 0.5
    delta_d: float = 2.0
    pull_weight: float = 1.0
    push_weight: float = 1.0
    object_weight: float = 1.0
    regulariser_weight: float = 0.001
    t: float = 0.9
    anchor: str = "random"
    neighbourhood: int | None = None

    def __call__(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The mean over a batch of each term, and their weighted sum as "loss".

        embeddings: (B, D, [Z,] Y, X) of any float type; labels: (B, [Z,] Y, X) integers, every
        value an instance of its own sample. Computed in float32 also under autocast.
        """
        device = embeddings.device.type
        with torch.autocast(device, enabled=False):
            samples = [self._terms(e, y) for e, y in zip(embeddings, labels, strict=True)]
        terms = {name: torch.stack([s[name] for s in samples]).mean() for name in samples[0]}
        weights = {
            "pull": self.pull_weight,
            "push": self.push_weight,
            "object": self.object_weight,
            "regulariser": self.regulariser_weight,
        }
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return {"loss": total, **terms}

    def _terms(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        instances = Instances.from_patch(embeddings, labels, neighbourhood=self.neighbourhood)
        terms = {
            "pull": pull(instances, self.delta_v),
            "push": push(instances, self.delta_d),
            "regulariser": regulariser(instances),
        }
        if self.object_weight:
            terms["object"] = object_dice(
                instances, delta_v=self.delta_v, t=self.t, anchor=self.anchor
            )
        return terms
