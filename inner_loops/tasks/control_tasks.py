"""Control worlds as task distributions: lifetimes differ by their seeds only.

Worlds that differ in these numbers share one program. With a ``costs`` wrapper (``wrapped_tasks``) they are
constrained problems.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.control.cart_pole import CartPoleGoal, CartPoleParams
from inner_loops.environments.control.pendulum import PendulumParams, PendulumSwingUp
from inner_loops.environments.control.point import PointGoal, PointParams
from inner_loops.tasks.agent_task import agent_task
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["CartPoleGoalTasks", "PendulumTasks", "PointGoalTasks"]


@component
class ControlTasks:
    """What the control tasks share."""

    lifetime: int = number(1000, doc="inner updates of a lifetime", at_least=1)
    max_steps: int = number(100, doc="of an episode", at_least=1)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    def sample(self, key: Array) -> Task:
        """The one world."""
        del key
        return agent_task(self._params(), jnp.asarray(self.lifetime, jnp.int32))

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` times the same world."""
        return jax.vmap(self.sample)(jax.random.split(key, count))

    def _params(self) -> Any:
        raise NotImplementedError

    @property
    def _steps(self) -> Array:
        return jnp.asarray(self.max_steps, jnp.int32)


@component
class PendulumTasks(ControlTasks):
    """A pendulum to be swung up, paid up to 1 a step."""

    max_torque: float = number(2.0, doc="ends of the action", above=0.0)

    @property
    def environment(self) -> PendulumSwingUp:
        """The pendulum."""
        return PendulumSwingUp()

    def _params(self) -> PendulumParams:
        return PendulumParams(jnp.asarray(self.max_torque, jnp.float32), self._steps)


@component
class CartPoleGoalTasks(ControlTasks):
    """A cart that carries its pole to a place, paid up to 1 a step."""

    start: float = number(0.0, doc="where episodes begin, in metres", at_least=-2.3, at_most=2.3)
    goal: float = number(1.0, doc="where the cart is to be, in metres", at_least=-2.4, at_most=2.4)
    discrete: bool = static(False, doc="push with all force to the left or to the right")

    @property
    def environment(self) -> CartPoleGoal:
        """The cart."""
        return CartPoleGoal(discrete=self.discrete)

    def _params(self) -> CartPoleParams:
        start, goal = (jnp.asarray(place, jnp.float32) for place in (self.start, self.goal))
        return CartPoleParams(start, goal, self._steps)


@component
class PointGoalTasks(ControlTasks):
    """A point pushed towards a goal in the plane, paid up to 1 a step."""

    spread: float = number(0.2, doc="episodes begin within +-spread", at_least=0.0, at_most=1.2)

    @property
    def environment(self) -> PointGoal:
        """The plane."""
        return PointGoal()

    def _params(self) -> PointParams:
        return PointParams(jnp.asarray(self.spread, jnp.float32), self._steps)
