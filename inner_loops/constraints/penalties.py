"""The penalty replay: mean costs of a step in the last episodes, from which ``J_C`` is drawn.

What a constraint limits is the mean cost of a step over an episode (Mankowitz, Calian et al. 2020,
arXiv:2010.10644). It is known once an episode ends, so a learner goes by the last ones.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Penalties", "count_penalties", "mean_penalty", "no_penalties", "sample_penalty"]


class Penalties(NamedTuple):
    """Costs of the episodes of ``B`` environments.

    Attributes:
        running: [B, C] sum of costs of the episode in progress.
        length: [B] steps of it.
        recent: [E, B, C] mean cost of a step in the last episodes, the newest first.
        ended: [B] int32 episodes that ended.
    """

    running: Array
    length: Array
    recent: Array
    ended: Array

    @property
    def known(self) -> Array:
        """[E, B] bool, the entries of ``recent`` that hold an episode."""
        return jnp.arange(self.recent.shape[0])[:, None] < self.ended


def no_penalties(episodes: int, num_envs: int, num_costs: int) -> Penalties:
    """The memory of ``episodes`` episodes of each environment, at birth."""
    zeros = jnp.zeros((num_envs, num_costs))
    recent = jnp.zeros((episodes, num_envs, num_costs))
    return Penalties(zeros, jnp.zeros(num_envs), recent, jnp.zeros(num_envs, jnp.int32))


def count_penalties(penalties: Penalties, cost: Array, done: Array, counts: Array) -> Penalties:
    """The memory after a rollout.

    Args:
        penalties: before the rollout.
        cost: [T, B, C] of each step.
        done: [T, B] bool, the step ended its episode.
        counts: [] bool; where not, the rollout is forgotten, and episodes begin behind it.
    """
    chex.assert_rank([cost, done, counts], [3, 2, 0])

    def step(memory: Penalties, now: tuple[Array, Array]) -> tuple[Penalties, None]:
        running, length = memory.running + now[0], memory.length + 1.0
        ends = now[1][:, None]
        pushed = jnp.concatenate([(running / length[:, None])[None], memory.recent[:-1]])
        return Penalties(
            running=jnp.where(ends, 0.0, running),
            length=jnp.where(now[1], 0.0, length),
            recent=jnp.where(ends, pushed, memory.recent),
            ended=memory.ended + now[1],
        ), None

    counted, _ = jax.lax.scan(step, penalties, (cost, done))
    forgotten = penalties._replace(
        running=jnp.zeros_like(penalties.running), length=jnp.zeros_like(penalties.length)
    )
    return jax.tree.map(lambda new, old: jnp.where(counts, new, old), counted, forgotten)


def mean_penalty(penalties: Penalties) -> tuple[Array, Array]:
    """[C] the mean over all remembered episodes, and whether there is one ([] bool)."""
    known = penalties.known[..., None]
    count = jnp.sum(known)
    total = jnp.sum(jnp.where(known, penalties.recent, 0.0), axis=(0, 1))
    return total / jnp.maximum(count, 1), count > 0


def sample_penalty(key: Array, penalties: Penalties, count: int) -> tuple[Array, Array]:
    """[C] the mean over ``count`` remembered episodes drawn with replacement, and whether there is one."""
    known = penalties.known.reshape(-1)
    rows = jax.random.categorical(key, jnp.where(known, 0.0, -jnp.inf), shape=(count,))
    drawn = penalties.recent.reshape(known.shape[0], -1)[rows]
    return jnp.mean(drawn, axis=0), jnp.any(known)
