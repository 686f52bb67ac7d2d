"""How each consumer of packages places tiles: pure functions, checked against the consumers."""

from collections.abc import Sequence
from typing import Protocol

from packager.consumers import core, ilastik, jdll
from packager.consumers.placement import DeclaredAxis, Placement, Refusal

__all__ = ["CONSUMERS", "Consumer", "core", "ilastik", "jdll"]


class Consumer(Protocol):
    """What every consumer's module offers; `place` may have more keywords, all with defaults."""

    @property
    def NAME(self) -> str: ...

    def place(self, axes: Sequence[DeclaredAxis], shape: Sequence[int]) -> Placement | Refusal: ...


CONSUMERS: tuple[Consumer, ...] = (core, ilastik, jdll)
"""All consumers, in the order in which tables name them."""
