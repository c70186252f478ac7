"""Trials: whole episodes of a policy as it is now, apart from its life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment

__all__ = ["Trial", "overshoot", "tried"]


class Trial(NamedTuple):
    """What came of it, means over episodes.

    Attributes:
        score: [] of an episode.
        cost: [C] of a step.
    """

    score: Array
    cost: Array


def tried(
    environment: Environment,
    key: Array,
    params: Any,
    policy: Callable[[Array], Array],
    episodes: int,
    steps: int,
) -> Trial:
    """Episodes from their beginning to their end.

    Args:
        environment: the world; it has costs.
        key: PRNG key.
        params: of the world.
        policy: observations ``[episodes, ...]`` to actions as the environment wants them.
        episodes: at once.
        steps: after which those that have not ended are cut off.
    """

    def body(carry: Any, key: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        obs, state, goes_on = carry
        noise = jax.vmap(lambda one: environment.randomness(one)[0])(jax.random.split(key, episodes))
        step = jax.vmap(environment.step_env, (0, 0, 0, None))
        obs, state, reward, terminated, truncated, info = step(noise, state, policy(obs), params)
        score = jnp.where(goes_on, info.get("score", reward), 0.0)
        cost = jnp.where(goes_on[:, None], info["cost"], 0.0)
        return (obs, state, goes_on & ~(terminated | truncated)), (score, cost, goes_on)

    begin_key, step_key = jax.random.split(key)
    noise = jax.vmap(lambda one: environment.randomness(one)[1])(jax.random.split(begin_key, episodes))
    obs, state = jax.vmap(environment.reset_env, (0, None))(noise, params)
    carry = (obs, state, jnp.ones(episodes, bool))
    _, (score, cost, lived) = jax.lax.scan(body, carry, jax.random.split(step_key, steps))
    length = jnp.sum(lived, axis=0)[:, None]
    return Trial(jnp.mean(jnp.sum(score, axis=0)), jnp.mean(jnp.sum(cost, axis=0) / length, axis=0))


def overshoot(cost: Array, limit: Array) -> Array:
    """[] by how much mean costs [C] exceed their limits [C], summed over the costs."""
    return jnp.sum(jnp.maximum(cost - limit, 0.0))
