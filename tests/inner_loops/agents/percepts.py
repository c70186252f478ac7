"""Random percepts, and an agent's logits along them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from inner_loops.agents.base import Percept, Sizes

STEPS = 6


def percepts(key: jax.Array, sizes: Sizes, steps: int = STEPS) -> Percept:
    """Leaves ``[steps, ...]``; whatever happens at a step, the first has no action before it."""
    obs_key, action_key, reward_key, done_key = jax.random.split(key, 4)
    actions = jax.random.randint(action_key, (steps,), 0, sizes.actions).at[0].set(-1)
    return Percept(
        obs=jax.random.normal(obs_key, (steps, sizes.observations)),
        action=jax.nn.one_hot(actions, sizes.actions),
        reward=jax.random.normal(reward_key, (steps,)),
        done=jax.random.bernoulli(done_key, 0.3, (steps,)).astype(jnp.float32),
        obs_mask=jnp.ones((steps, sizes.observations), bool),
        action_mask=jnp.ones((steps, sizes.actions), bool),
    )


@jax.jit
def logits_along(agent: Any, params: Any, memory: Any, heard: Percept) -> jax.Array:
    """[steps, A]."""
    return jax.lax.scan(lambda memory, percept: agent.step(params, memory, percept), memory, heard)[1]


def born_logits(agent: Any, params: Any, heard: Percept, seed: int = 0) -> jax.Array:
    """``logits_along`` from birth."""
    sizes = Sizes(heard.obs.shape[-1], heard.action.shape[-1])
    return logits_along(agent, params, agent.init_memory(jax.random.key(seed), params, sizes), heard)
