"""Sticky actions: the world repeats the last action with some probability.

Machado et al. 2018 (arXiv:1709.06009). The first action of an episode is always the agent's. Returns are no
longer a function of policy and observation alone: there are no exact ones.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, number

__all__ = ["StickyActions", "StickyState"]


class StickyState(NamedTuple):
    """Where an episode is.

    Attributes:
        inner: the state inside.
        action: the last action that was taken inside.
        acted: [] bool, there was one in this episode.
    """

    inner: Any
    action: Array
    acted: Array


@component
class StickyActions(Wrapper):
    """The last action is repeated with some probability (Machado et al. 2018).

    ``own``: [] float32, that probability.
    """

    probability: float = number(0.25, doc="that an action is the last one again", at_least=0.0, at_most=1.0)

    keeps_returns: ClassVar[bool] = False

    def draw(self, key: Array) -> Array:
        """The same probability in every world."""
        del key
        return jnp.asarray(self.probability, jnp.float32)

    def randomness(self, key: Array) -> tuple[Any, Any]:
        """A uniform number of the step beside the noise inside."""
        own_key, inner_key = jax.random.split(key)
        step_noise, reset_noise = self.inside.randomness(inner_key)
        return (jax.random.uniform(own_key), step_noise), reset_noise

    def reset_env(self, noise: Any, params: WrappedParams) -> tuple[Array, StickyState]:
        """Nothing to repeat yet."""
        obs, inner = super().reset_env(noise, params)
        size = self.action_size
        none = jnp.zeros((), jnp.int32) if size is None else jnp.zeros((size,), jnp.float32)
        return obs, StickyState(inner, none, jnp.zeros((), bool))

    def step_env(
        self, noise: Any, state: StickyState, action: Array, params: WrappedParams
    ) -> tuple[Array, StickyState, Array, Array, Array, Info]:
        """Takes the agent's action or the last one."""
        uniform, inner_noise = noise
        repeated = state.acted & (uniform < params.own)
        taken = jnp.where(repeated, state.action, action).astype(state.action.dtype)
        obs, inner, reward, terminated, truncated, info = super().step_env(
            inner_noise, state.inner, taken, params
        )
        new_state = StickyState(inner, taken, jnp.ones((), bool))
        return obs, new_state, reward, terminated, truncated, info
