"""Stepping parallel environments with resets that are made before a rollout, all at once.

An environment resets itself at every step under a select, and mostly for nothing. Here ``R`` resets of each
environment are made before the rollout, as one vectorised computation; one that ends at step ``t`` begins
again with row ``t % R``. With ``R = T`` every beginning is as fresh as one made on the spot; with fewer
rows, episodes that end a multiple of ``R`` steps apart, in one rollout of one environment, begin alike.
Pools live for one rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.protocols import PyTree
from metalab.trees import select

__all__ = ["ResetPool", "can_pool", "fill", "pooled_step", "rollout_steps"]

Stepped = tuple[Array, PyTree, Array, Array, Array, Info]


class ResetPool(NamedTuple):
    """First observations and states.

    Attributes:
        obs: [R, B, ...].
        state: leaves ``[R, B, ...]``.
    """

    obs: Array
    state: PyTree

    def row(self, step: Array) -> tuple[Array, PyTree]:
        """What environments that end at ``step`` [] int32 begin with; leaves ``[B, ...]``."""
        index = step % self.obs.shape[0]
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), (self.obs, self.state)
        )


def can_pool(environment: Environment) -> bool:
    """Whether the environment has a step without a reset."""
    return type(environment).step_env is not Environment.step_env


def fill(environment: Environment, key: Array, rows: int, num_envs: int, params: PyTree) -> ResetPool:
    """``rows`` fresh resets for each of ``num_envs`` environments."""
    reset = jax.vmap(jax.vmap(environment.reset, (0, None)), (0, None))
    return ResetPool(*reset(jax.random.split(key, (rows, num_envs)), params))


def pooled_step(
    environment: Environment,
    noise: Any,
    state: PyTree,
    action: Array,
    params: PyTree,
    first: tuple[Array, PyTree],
) -> Stepped:
    """``Environment.step`` of one environment, whose next episode begins with ``first``.

    Args:
        environment: the dynamics.
        noise: of the step, the first part of ``environment.randomness``.
        state: before the action.
        action: as the environment wants it.
        params: the world.
        first: observation and state.
    """
    obs, next_state, reward, terminated, truncated, info = environment.step_env(noise, state, action, params)
    new_obs, new_state = select(jnp.logical_or(terminated, truncated), first, (obs, next_state))
    info = {"score": reward, **info, "final_observation": obs}
    return new_obs, new_state, reward, terminated, truncated, info


def rollout_steps(
    environment: Environment, key: Array, length: int, num_envs: int, pool_rows: int, params: PyTree
) -> tuple[PyTree, Callable[[PyTree, PyTree, Array], Stepped]]:
    """What a rollout's loop over steps needs of its environments.

    Args:
        environment: the world.
        key: PRNG key of the rollout.
        length: T.
        num_envs: B.
        pool_rows: R; 0: the environment resets itself at every step.
        params: of the world.

    Returns:
        What to scan over, leaves ``[T, ...]``, and ``step(x, state, action)``, which makes one step of all
        environments with an entry ``x`` of it: ``Environment.step`` with leaves ``[B, ...]``.

    Raises:
        ValueError: a pool is asked for, and the environment cannot step without a reset.
    """
    pool_key, noise_key = jax.random.split(key)
    keys = jax.random.split(noise_key, (length, num_envs))
    if pool_rows == 0:
        step = jax.vmap(environment.step, (0, 0, 0, None))
        return keys, lambda key, state, action: step(key, state, action, params)
    if not can_pool(environment):
        raise ValueError(
            f"{type(environment).__name__} has no step_env, a step without a reset, as a reset pool needs: "
            "use reset_pool=0"
        )
    pool = fill(environment, pool_key, min(pool_rows, length), num_envs, params)
    noise = jax.vmap(jax.vmap(lambda one: environment.randomness(one)[0]))(keys)
    pooled = jax.vmap(lambda *args: pooled_step(environment, *args), (0, 0, 0, None, 0))

    def one_step(x: tuple[Array, PyTree], state: PyTree, action: Array) -> Stepped:
        index, noise = x
        return pooled(noise, state, action, params, pool.row(index))

    return (jnp.arange(length), noise), one_step
