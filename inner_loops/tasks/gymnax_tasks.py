"""One gymnax environment as a task distribution: lifetimes differ by their seeds only."""

from __future__ import annotations

import jax
from jax import Array

from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["GymnaxTasks"]


@component
class GymnaxTasks:
    """A gymnax environment with its default parameters; lifetimes differ by their seeds."""

    name: str = static(default="CartPole-v1", doc="as gymnax registers it, for example Catch-bsuite")
    lifetime: int = number(default=1000, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    @property
    def environment(self) -> GymnaxEnvironment:
        """The environment of that name."""
        return GymnaxEnvironment(name=self.name)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    def sample(self, key: Array) -> Task:
        """The environment's default parameters."""
        lifetime = sample_lifetime(key, self.lifetime, self.shortest_lifetime)
        return agent_task(self.environment.default_params(), lifetime)

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` times the same world."""
        return jax.vmap(self.sample)(jax.random.split(key, count))
