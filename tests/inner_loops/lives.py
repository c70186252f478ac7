"""Lives that tests of several agents lead: of one update in three ways, of some in one world."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.policy import TowerNetwork
from metalab.optimizers import Adam
from metalab.protocols import InnerLoop

# What tests of PPO, with and without a memory, are run with unless they say otherwise.
SMALL_PPO: dict[str, Any] = {
    "network": TowerNetwork(hidden_sizes=(8,)),
    "optimizer": Adam(learning_rate=0.01, eps=1e-5, max_grad_norm=0.5),
    "num_envs": 8,
    "rollout_length": 16,
    "discount": 0.9,
    "entropy": 0.0,
}


def check_one_life_in_three_ways(agent: InnerLoop, tasks: Any, rtol: float = 1e-6, atol: float = 0.0) -> None:
    """One update of a newborn ends the same vmapped, compiled alone and not compiled.

    Raises:
        AssertionError: it does not.
    """

    def live(key: Array) -> Any:
        state = agent.init(key, (), tasks.sample(key))
        return agent.step(key, (), state, None)[0]

    keys = jax.random.split(jax.random.key(3), 2)
    both = jax.jit(jax.vmap(live))(keys)
    single = jax.jit(live)(keys[1])
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], both), single, rtol=rtol, atol=atol)
    with jax.disable_jit():
        plain = live(keys[1])
    chex.assert_trees_all_close(plain, single, rtol=rtol, atol=atol)


def last_scores(agent: InnerLoop, tasks: Any, updates: int, seeds: int) -> Array:
    """[seeds] mean scores of the environments' last episodes after some updates."""

    def live(key: Array) -> Array:
        state = agent.init(key, (), tasks.sample(key))
        step = lambda state, key: (agent.step(key, (), state, None)[0], None)  # noqa: E731
        grown: Any = jax.lax.scan(step, state, jax.random.split(key, updates))[0]
        return jnp.mean(grown.episodes.last)

    return jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(5), seeds))
