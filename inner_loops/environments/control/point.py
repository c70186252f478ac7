"""A point in the plane that is pushed towards a goal, paid from 0 to 1.

Speed and place follow ``v' = 0.8 v + 0.04 a`` and ``p' = clip(p + v', -1.2, 1.2)``; the reward is
``exp(-1.5 |p' - goal|)``. Goals are uniform over [-1, 1]^2. Observed are place, speed and goal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops import draws
from inner_loops.environments.control.base import ControlEnvironment
from metalab.components import component

__all__ = ["PointGoal", "PointParams"]

_KEPT, _PUSH, _WALL = 0.8, 0.04, 1.2


class PointParams(NamedTuple):
    """One plane.

    Attributes:
        spread: [] float32, episodes begin uniformly within +-spread.
        max_steps: [] int32, of an episode.
    """

    spread: Array
    max_steps: Array


@component
class PointGoal(ControlEnvironment):
    """A point pushed towards a goal in the plane, paid up to 1 a step."""

    @property
    def action_size(self) -> int | None:
        """2, the push."""
        return 2

    def action_bounds(self, params: PointParams) -> tuple[Array, Array]:
        """-1 and 1."""
        del params
        return -jnp.ones(2), jnp.ones(2)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Place, speed and goal, two entries each."""
        return (6,)

    def _begin(self, key: Array, params: PointParams) -> Array:
        place, goal = draws.uniform(key, (2, 2), minval=-1.0, maxval=1.0)
        return jnp.concatenate([params.spread * place, jnp.zeros(2), goal])

    def _move(self, physics: Array, action: Array, params: PointParams) -> tuple[Array, Array]:
        del params
        place, speed, goal = jnp.split(physics, 3)
        speed = _KEPT * speed + _PUSH * jnp.clip(action, -1.0, 1.0)
        place = jnp.clip(place + speed, -_WALL, _WALL)
        reward = jnp.exp(-1.5 * jnp.sqrt(jnp.sum(jnp.square(place - goal))))
        return jnp.concatenate([place, speed, goal]), reward

    def _observe(self, physics: Array) -> Array:
        return physics
