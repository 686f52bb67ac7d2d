"""The training losses: discriminative (De Brabandere et al. 2017), and SPOCO's L_SO and L_SSO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.consistency import consistency
from training.losses.instance_selection import object_bce, object_dice
from training.losses.instances import Instances
from training.losses.pull import pull
from training.losses.push import push
from training.losses.regulariser import regulariser
from training.losses.rim import rim
from training.losses.unlabeled_push import unlabeled_push

OBJECT_LOSSES = {"dice": object_dice, "bce": object_bce}


@dataclass(frozen=True)
class EmbeddingLoss:
    """alpha pull + beta push + lambda object + regulariser (Eq. 5); lambda 0: discriminative loss.

    `unlabeled` None is full supervision. A label that stands for "unlabeled" makes it L_SSO
    (Eq. 8): + gamma unlabeled push + delta consistency; the latter needs a teacher's embeddings.

    Pixels of the label `ignore` take part in no term, as if the patch had not had them.

    `neighbourhood` None is the papers' definition: every instance is compared with every other. A
    number of pixels compares only instances whose bounding boxes are at most so far apart: distant
    ones that look alike cannot all have different embeddings (Rumberger et al. 2021), and need not,
    since clustering joins touching pixels only. The same holds for unlabeled pixels.

    `rim_weight` adds a term for the background beside the instances (rim.py); it needs a labeled
    background.
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
    object_loss: str = "dice"
    unlabeled: int | None = None
    ignore: int | None = None
    unlabeled_push_weight: float = 1.0
    consistency_weight: float = 1.0
    rim_weight: float = 0.0

    def __call__(
        self, embeddings: Tensor, labels: Tensor, teacher: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The mean over a batch of each term, and their weighted sum as "loss".

        embeddings: (B, D, [Z,] Y, X) of any float type; labels: (B, [Z,] Y, X) integers, every
        value but `unlabeled` and `ignore` an instance of its own sample. Computed in float32 also
        under autocast. `teacher`: g's embeddings of the same pixels, as `embeddings`; under full
        supervision the consistency then draws its anchors from everywhere.
        """
        teachers = [None] * len(embeddings) if teacher is None else list(teacher)
        with torch.autocast(embeddings.device.type, enabled=False):
            samples = [
                self._terms(e, y, g) for e, y, g in zip(embeddings, labels, teachers, strict=True)
            ]
        terms = {name: torch.stack([s[name] for s in samples]).mean() for name in samples[0]}
        weights = {
            "pull": self.pull_weight,
            "push": self.push_weight,
            "object": self.object_weight,
            "regulariser": self.regulariser_weight,
            "unlabeled_push": self.unlabeled_push_weight,
            "consistency": self.consistency_weight,
            "rim": self.rim_weight,
        }
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return {"loss": total, **terms}

    def _terms(
        self, embeddings: Tensor, labels: Tensor, teacher: Tensor | None
    ) -> dict[str, Tensor]:
        instances = Instances.from_patch(
            embeddings,
            labels,
            neighbourhood=self.neighbourhood,
            unlabeled=self.unlabeled,
            ignore=self.ignore,
        )
        terms = {
            "pull": pull(instances, self.delta_v),
            "push": push(instances, self.delta_d),
            "regulariser": regulariser(instances),
        }
        if self.object_weight:
            terms["object"] = OBJECT_LOSSES[self.object_loss](
                instances, delta_v=self.delta_v, t=self.t, anchor=self.anchor
            )
        if self.unlabeled is not None and self.unlabeled_push_weight:
            terms["unlabeled_push"] = unlabeled_push(instances, self.delta_d)
        if self.rim_weight:
            terms["rim"] = rim(embeddings, labels, self.delta_v, ignore=self.ignore)
        if teacher is not None:
            terms["consistency"] = self._consistency(embeddings, labels, teacher)
        return terms

    def _consistency(self, embeddings: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """Anchors from the unlabeled pixels, or from everywhere under full supervision."""
        f, g, ids = (x.flatten(-labels.ndim) for x in (embeddings, teacher, labels))
        if self.ignore is not None:
            kept = ids != self.ignore
            f, g, ids = f[:, kept], g[:, kept], ids[kept]
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        region = everywhere if self.unlabeled is None else ids == self.unlabeled
        return consistency(f.float().T, g.float().T, region, delta_v=self.delta_v, t=self.t)
