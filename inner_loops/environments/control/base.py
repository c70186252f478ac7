"""What the control worlds share: a vector of physics, a time limit and nothing else that ends an episode.

Rewards lie in [0, 1], so the return of an episode is at most its length. Time limits are no ends: learners
look beyond them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info

__all__ = ["ControlEnvironment", "ControlState"]


class ControlState(NamedTuple):
    """Where an episode is.

    Attributes:
        physics: [n] float32, of the moving body.
        time: [] int32, steps taken.
    """

    physics: Array
    time: Array


class ControlEnvironment(Environment[ControlState, Any]):
    """A time-limited world; subclasses give its beginning, its motion and what is seen of it.

    Its parameters have ``max_steps`` [] int32.
    """

    @property
    def num_states(self) -> int | None:
        """None: observations are vectors."""
        return None

    def randomness(self, key: Array) -> tuple[tuple[()], Array]:
        """Nothing for the step, in which nothing is random, and the key for the reset."""
        return (), key

    def reset_env(self, noise: Array, params: Any) -> tuple[Array, ControlState]:
        """The first observation and state of an episode; ``noise`` is a key."""
        physics = self._begin(noise, params)
        return self._observe(physics), ControlState(physics, jnp.zeros((), jnp.int32))

    def step_env(
        self, noise: Any, state: ControlState, action: Array, params: Any
    ) -> tuple[Array, ControlState, Array, Array, Array, Info]:
        """One step; nothing in it is random."""
        del noise
        physics, reward = self._move(state.physics, action, params)
        time = state.time + 1
        never = jnp.zeros((), bool)
        return (
            self._observe(physics),
            ControlState(physics, time),
            reward,
            never,
            time >= params.max_steps,
            {},
        )

    def _begin(self, key: Array, params: Any) -> Array:
        """[n] at the beginning of an episode."""
        raise NotImplementedError

    def _move(self, physics: Array, action: Array, params: Any) -> tuple[Array, Array]:
        """[n] after a step, and its reward []."""
        raise NotImplementedError

    def _observe(self, physics: Array) -> Array:
        """What the agent sees."""
        raise NotImplementedError
