"""Adversarial term: soft masks look like annotated ones to a critic (Wolny et al. 2022, Eqs. 9-11).

A Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028): the embedding
network with its instance selection is the generator, the critic D learns to score true masks I
above soft masks S.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.losses.instance_selection import instance_anchors, soft_masks
from training.losses.instances import Instances

WIDTHS = (64, 128, 256, 512)


class Critic(nn.Module):
    """One number per mask: (K, [Z,] Y, X) in 0..1 -> (K,).

    Four blocks of a 3x3(x3) convolution, leaky ReLU and max-pooling by 2, without norm, whose
    gradient penalty would need every mask on its own; then the mean over what is left of the space,
    so that masks of any size fit, and a dense layer.
    """

    def __init__(self, ndim: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if ndim == 2 else nn.Conv3d
        pool: Any = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        layers: list[nn.Module] = []
        for before, after in zip((1, *widths), widths, strict=False):
            layers += [convolution(before, after, 3, padding=1), nn.LeakyReLU(0.01)]
            layers.append(pool(2, ceil_mode=True))
        self.blocks = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1], 1)

    def forward(self, masks: Tensor) -> Tensor:
        features = self.blocks(masks[:, None]).flatten(2).mean(dim=2)
        values: Tensor = self.dense(features)[:, 0]
        return values


def critic_loss(critic: nn.Module, true: Tensor, soft: Tensor, *, penalty: float = 10.0) -> Tensor:
    """E D(soft) - E D(true) + penalty E (||grad D(x)|| - 1)^2, a scalar.

    x lies at a random place between the two masks of each pair. true, soft: (K, [Z,] Y, X), K >= 1.
    """
    place = torch.rand(len(true), *[1] * (true.ndim - 1), device=true.device, dtype=true.dtype)
    between = (place * true + (1 - place) * soft).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    steepness = slope.flatten(1).norm(dim=1)
    loss: Tensor = (
        critic(soft).mean() - critic(true).mean() + penalty * ((steepness - 1) ** 2).mean()
    )
    return loss


def generator_term(critic: nn.Module, soft: Tensor) -> Tensor:
    """-E D(soft), a scalar; 0 without masks."""
    return -critic(soft).mean() if len(soft) else soft.sum()


def mask_pairs(
    embeddings: Tensor, labels: Tensor, *, delta_v: float, t: float, unlabeled: int | None
) -> tuple[Tensor, Tensor]:
    """True and soft masks of one sample's instances, each (C, [Z,] Y, X) float32.

    embeddings D(z)yx, labels (z)yx; soft masks around a random pixel of each instance (Eq. 3).
    """
    instances = Instances.from_patch(embeddings, labels, unlabeled=unlabeled)
    ids = torch.unique(labels)
    if unlabeled is not None:
        ids = ids[ids != unlabeled]
    true = (labels[None] == ids.view(-1, *[1] * labels.ndim)).float()
    anchors = instance_anchors(instances, "random")
    soft = soft_masks(embeddings.flatten(1).float().T, anchors, delta_v=delta_v, t=t)
    return true, soft.reshape(true.shape)
