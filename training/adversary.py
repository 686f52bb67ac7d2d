"""The critic in training: it is optimised between the steps of the network that it judges.

After the warm-up the critic learns at every step and the network hears of it at every fifth, so
there are five steps of the critic to one of the generator (Wolny et al. 2022, supplement)::

    step        0 ... warm-up | +0 +1 +2 +3 +4  +5 +6 +7 +8 +9
    critic                       x  x  x  x  x   x  x  x  x  x
    generator                                x               x
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.losses.adversarial import Critic, critic_loss, generator_term

STEPS = 5
"""Steps of the critic to one of the generator."""
MASKS = 8
"""Pairs of masks per step, drawn from those of the whole batch: each goes through the critic."""


class Adversary(nn.Module):
    """A critic and its own optimiser, whose state travels in the module's state."""

    def __init__(self, ndim: int, *, warmup: int) -> None:
        super().__init__()
        self.critic = Critic(ndim)
        self.warmup = warmup
        self.optimiser = torch.optim.Adam(self.critic.parameters(), lr=1e-4, betas=(0.5, 0.9))
        self._restored: dict[str, Any] | None = None

    def forward(self, true: Tensor, soft: Tensor, *, step: int) -> Tensor:
        """One step of the critic, then the generator's term: 0 where it is not its turn.

        true, soft: (K, [Z,] Y, X) float32 masks; gradients reach `soft`.
        """
        since = step - self.warmup
        if since < 0 or len(true) == 0:
            return soft.sum() * 0.0
        chosen = torch.randperm(len(true), device=true.device)[:MASKS]
        true, soft = true[chosen], soft[chosen]
        self._learn(true, soft.detach())
        if since % STEPS != STEPS - 1:
            return soft.sum() * 0.0
        self.critic.requires_grad_(False)  # the generator's turn teaches the critic nothing
        return generator_term(self.critic, soft)

    def _learn(self, true: Tensor, soft: Tensor) -> None:
        if self._restored is not None:  # now, that the weights are on their device
            self.optimiser.load_state_dict(self._restored)
            self._restored = None
        self.critic.requires_grad_(True)
        self.optimiser.zero_grad()
        critic_loss(self.critic, true, soft).backward()
        self.optimiser.step()

    def get_extra_state(self) -> dict[str, Any]:
        return self._restored or self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._restored = state
