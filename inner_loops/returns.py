"""Returns and advantages of one trajectory; the caller vmaps."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["generalized_advantages"]


def generalized_advantages(
    r_t: Array,
    v_tm1: Array,
    v_t: Array,
    terminated_t: Array,
    truncated_t: Array,
    discount: Array,
    lambda_: Array,
) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    The advantage bootstraps from the true next state where the time limit struck and not where the episode
    ended; in both cases nothing flows back from the next episode.

    Args:
        r_t: [T] rewards.
        v_tm1: [T] values of the states acted in.
        v_t: [T] values of the states reached, before any reset.
        terminated_t, truncated_t: [T] bool.
        discount: [] gamma.
        lambda_: [] trace decay.

    Returns:
        [T] advantages; add ``v_tm1`` for lambda-returns.
    """
    chex.assert_rank([r_t, v_tm1, v_t, terminated_t, truncated_t], 1)
    delta_t = r_t + discount * jnp.where(terminated_t, 0.0, v_t) - v_tm1
    decay_t = jnp.where(terminated_t | truncated_t, 0.0, discount * lambda_)

    def body(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        advantage = xs[0] + xs[1] * advantage
        return advantage, advantage

    return jax.lax.scan(body, jnp.zeros_like(delta_t[0]), (delta_t, decay_t), reverse=True)[1]
