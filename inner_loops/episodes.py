"""Episode statistics of parallel environments, counted once a rollout instead of once a step."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Episodes", "count_episodes", "no_episodes"]


class Episodes(NamedTuple):
    """Episode statistics that survive auto-reset.

    Attributes:
        running: [B] score of the episode in progress.
        last: [B] score of the last episode that ended; before the first one that of the episode in progress,
            and NaN at birth: a newborn has done nothing yet, which is neither good nor bad.
        ended: [B] int32 number of episodes that ended.
    """

    running: Array
    last: Array
    ended: Array

    @property
    def score(self) -> Array:
        """[] mean over environments of ``last``."""
        return jnp.mean(self.last)


def no_episodes(num_envs: int) -> Episodes:
    """The statistics of ``num_envs`` environments at birth."""
    zeros = jnp.zeros(num_envs)
    return Episodes(zeros, jnp.full_like(zeros, jnp.nan), jnp.zeros(num_envs, jnp.int32))


def count_episodes(episodes: Episodes, score: Array, done: Array) -> Episodes:
    """The statistics after a rollout.

    Args:
        episodes: before the rollout.
        score: [T, B] score of each step.
        done: [T, B] bool, the step ended its episode.
    """
    chex.assert_equal_shape([score, done])
    # How many episodes end at this step or later: 0 in the one in progress, 1 in the last that ended.
    ends_left = jax.lax.cumsum(done.astype(jnp.int32), axis=0, reverse=True)
    total = ends_left[0]
    in_progress, in_last = (
        jnp.sum(jnp.where(ends_left == count, score, 0.0), axis=0, dtype=episodes.running.dtype)
        + jnp.where(total == count, episodes.running, 0.0)  # it began before this rollout
        for count in (0, 1)
    )
    # Zero instead would be the best score of all wherever scores are negative.
    known = jnp.where(episodes.ended > 0, episodes.last, in_progress)
    return Episodes(
        running=in_progress,
        last=jnp.where(total > 0, in_last, known),
        ended=episodes.ended + total,
    )
