"""A reward for the end of an episode alone.

A reward of 1 for every step that a pole stands carries no signal before it falls: an agent that hears its
rewards, and nothing else, learns more from -1 at the fall and 0 otherwise. The time limit is no end.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, number, static

__all__ = ["TerminalReward"]


@component
class TerminalReward(Wrapper):
    """-1 (or another reward) where the episode terminates, 0 at all other steps; terminations are counted.

    ``own``: [] float32, the reward.
    """

    reward: float = number(-1.0, doc="where the episode terminates; 1 where that is the goal")
    tally: str = static("failures", doc="what terminations are called in reports")

    keeps_returns: ClassVar[bool] = False

    @property
    def tallies(self) -> tuple[str, ...]:
        """Those inside, then the terminations."""
        return (*super().tallies, self.tally)

    def draw(self, key: Array) -> Array:
        """The same reward in every world."""
        del key
        return jnp.asarray(self.reward, jnp.float32)

    def step_env(
        self, noise: Any, state: Any, action: Array, params: WrappedParams
    ) -> tuple[Array, Any, Array, Array, Array, Info]:
        """The step inside, paid anew."""
        obs, state, _, terminated, truncated, info = super().step_env(noise, state, action, params)
        reward = jnp.where(terminated, params.own, 0.0)
        tallies = {**info.get("tallies", {}), self.tally: terminated.astype(jnp.float32)}
        return obs, state, reward, terminated, truncated, {**info, "score": reward, "tallies": tallies}
