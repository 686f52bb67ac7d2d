"""The teacher g: what the consistency term compares the trained network f with.

The four ways to have one that Wolny et al. 2022 (supplement A.3) compare::

    momentum   theta_g <- m theta_g + (1 - m) theta_f after every step; no gradient     (default)
    shared     g = f, which sees the other view
    dropout    g = f with dropout behind its deepest block
    trained    weights of its own, trained through the consistency

A teacher lives in training: it is in last.ckpt, so that a run can be resumed, and beside f in the
checkpoint only where `keep` asks for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from training.sections import TeacherSection
from zoo_models.checkpoint import answering_part

DROPOUT = 0.5


class Shared(nn.Module):
    """g = f; and the steps that other teachers fill with more."""

    def forward(self, images: Tensor, student: nn.Module) -> Tensor:
        """Embeddings (B, D, [Z,] Y, X) of the second views (B, C, [Z,] Y, X).

        On copies of the student's buffers: the running statistics of its batch norms are those of
        the first views, and the gradient of this call is not disturbed when they are updated.
        """
        buffers = {name: buffer.clone() for name, buffer in student.named_buffers()}
        embeddings: Tensor = functional_call(student, buffers, (images,))
        return embeddings

    def start_from(self, student: nn.Module) -> None:
        """The student has got its first weights from a checkpoint."""

    def after_step(self, student: nn.Module) -> None:
        """The student has been optimised."""


class Dropout(Shared):
    """g = f with dropout on the output of its deepest encoder block.

    A hook for the time of the call, since shipped networks have no dropout of their own.
    """

    def forward(self, images: Tensor, student: nn.Module) -> Tensor:
        deepest: Any = student.encoder[-1]  # type: ignore[index]
        hook = deepest.register_forward_hook(lambda _module, _inputs, out: F.dropout(out, DROPOUT))
        try:
            return super().forward(images, student)
        finally:
            hook.remove()


class Trained(Shared):
    """g has the student's architecture and its own weights, random at first."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student)
        for module in self.network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]

    def forward(self, images: Tensor, student: nn.Module) -> Tensor:
        embeddings: Tensor = self.network(images)
        return embeddings

    def start_from(self, student: nn.Module) -> None:
        self.network.load_state_dict(student.state_dict())


class Momentum(Shared):
    """g is the running mean of f over the steps; buffers (those of batch norm) are f's own."""

    def __init__(self, student: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, images: Tensor, student: nn.Module) -> Tensor:
        embeddings: Tensor = self.network(images)
        return embeddings

    def start_from(self, student: nn.Module) -> None:
        self.network.load_state_dict(student.state_dict())

    @torch.no_grad()
    def after_step(self, student: nn.Module) -> None:
        for mine, theirs in zip(self.network.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.momentum)
        buffers = zip(self.network.buffers(), student.buffers(), strict=True)
        for own, given in buffers:
            own.copy_(given)


def named_as_in(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A teacher's weights under the names of the whole network, as a checkpoint has them.

    Teachers are copies of the part that is trained; `network` may be a wrapper around it.
    """
    whole = copy.deepcopy(network)
    answering_part(whole).load_state_dict(dict(weights))
    return {name: value.detach().cpu() for name, value in whole.state_dict().items()}


def build_teacher(section: TeacherSection, student: nn.Module) -> Shared:
    """A teacher of the kind in the configuration, for a student that has its first weights."""
    if section.kind == "momentum":
        return Momentum(student, section.momentum)
    if section.kind == "trained":
        return Trained(student)
    return Dropout() if section.kind == "dropout" else Shared()
