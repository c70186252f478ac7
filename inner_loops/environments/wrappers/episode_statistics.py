"""What an episode has come to so far, in every step's info.

At the step that ends an episode these are the whole episode's: they stand beside the final observation,
before the reset.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component

__all__ = ["EpisodeState", "EpisodeStatistics"]


class EpisodeState(NamedTuple):
    """Where an episode is.

    Attributes:
        inner: the state inside.
        score: [] float32, sum of scores so far.
        length: [] int32, steps so far.
        cost: [C] float32, sums of costs so far.
    """

    inner: Any
    score: Array
    length: Array
    cost: Array


@component
class EpisodeStatistics(Wrapper):
    """Score, length and costs of the episode so far: ``info["episode_*"]``."""

    def reset_env(self, noise: Any, params: WrappedParams) -> tuple[Array, EpisodeState]:
        """All zero."""
        obs, inner = super().reset_env(noise, params)
        cost = jnp.zeros((self.num_costs,), jnp.float32)
        return obs, EpisodeState(inner, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), cost)

    def step_env(
        self, noise: Any, state: EpisodeState, action: Array, params: WrappedParams
    ) -> tuple[Array, EpisodeState, Array, Array, Array, Info]:
        """The step inside, counted."""
        obs, inner, reward, terminated, truncated, info = super().step_env(noise, state.inner, action, params)
        score = state.score + jnp.asarray(info.get("score", reward), jnp.float32)
        new_state = EpisodeState(inner, score, state.length + 1, state.cost + info.get("cost", 0.0))
        info = {**info, "episode_score": score, "episode_length": new_state.length}
        if self.num_costs:
            info["episode_cost"] = new_state.cost
        return obs, new_state, reward, terminated, truncated, info
