"""Components whose parts depend on one another's numbers, for points made from templates."""

from __future__ import annotations

from typing import Any

from metalab.components import component, number, part
from tests.toys import Chaser, Targets


@component
class Ice:
    """A world with a number of its own."""

    slip: float = number(0.0, doc="how slippery", at_least=0.0, at_most=1.0)
    depth: float = number(1.0, doc="how deep")


@component
class IceTargets(Targets):
    """Targets on ice: the tasks' number is the world's too."""

    slip: float = number(0.0, doc="of the world", at_least=0.0, at_most=1.0)

    @property
    def environment(self) -> Ice:
        return Ice(slip=self.slip)


@component
class Skater(Chaser):
    """A chaser that knows the ice."""

    environment: Any = part(None, doc="the world", group="environment")


@component
class Doubled(Chaser):
    """Fills in a number from another one."""

    twice: float | None = number(None, doc="twice the gain")

    def __post_init__(self) -> None:
        if self.twice is None:
            object.__setattr__(self, "twice", 2 * self.gain)


@component
class Ordered(Chaser):
    """Refuses a gain above its bound."""

    bound: float = number(1.0, doc="of the gain")

    def __post_init__(self) -> None:
        if isinstance(self.gain, float) and self.gain > self.bound:
            raise ValueError(f"gain = {self.gain} is above bound = {self.bound}")
