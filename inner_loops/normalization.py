"""Running moments of observations and of discounted returns, updated once a rollout.

Batches are merged by the parallel form of Welford's algorithm (Chan, Golub & LeVeque 1983): the moments after
any number of batches are those of all samples together, up to rounding.

**Deviation** from the usual wrappers, which update at every step: within a rollout the moments stand still.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Moments", "ReturnScale", "no_moments", "no_returns", "scale_rewards", "standardize", "with_batch"]

_CLIP = 10.0  # standard deviations: an entry that has hardly varied so far may jump
_EPS = 1e-8


class Moments(NamedTuple):
    """Mean and variance of what has been seen.

    Attributes:
        seen: [] float, samples.
        mean: [...].
        variance: [...] of the population (divided by their number); 1 before the first sample.
    """

    seen: Array
    mean: Array
    variance: Array


class ReturnScale(NamedTuple):
    """What rewards are divided by.

    Attributes:
        running: [B] discounted sum of the rewards of the episode in progress.
        moments: of that sum, over all steps.
    """

    running: Array
    moments: Moments


def no_moments(shape: tuple[int, ...]) -> Moments:
    """Nothing seen: ``standardize`` is the identity within its bounds."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def with_batch(moments: Moments, batch: Array) -> Moments:
    """The moments with the samples ``[..., *shape]`` added."""
    axes = tuple(range(batch.ndim - moments.mean.ndim))
    chex.assert_shape(batch, (..., *moments.mean.shape))
    count = batch.size // max(moments.mean.size, 1)
    batch = jnp.asarray(batch, moments.mean.dtype)
    total = moments.seen + count
    difference = jnp.mean(batch, axes) - moments.mean
    share, rest = count / total, moments.seen / total
    return Moments(
        seen=total,
        mean=moments.mean + share * difference,
        variance=rest * moments.variance
        + share * jnp.var(batch, axes)
        + share * rest * jnp.square(difference),
    )


def standardize(moments: Moments, values: Array) -> Array:
    """``values [..., *shape]`` less the mean, in standard deviations, within +-10."""
    scaled = (values - moments.mean) * jax.lax.rsqrt(moments.variance + _EPS)
    return jnp.clip(scaled, -_CLIP, _CLIP)


def no_returns(num_envs: int) -> ReturnScale:
    """The scale at birth."""
    return ReturnScale(jnp.zeros(num_envs), no_moments(()))


def scale_rewards(
    scale: ReturnScale, reward: Array, done: Array, discount: Array
) -> tuple[ReturnScale, Array]:
    """Divides rewards by the standard deviation of the discounted return so far, this rollout included.

    Args:
        scale: before the rollout.
        reward: [T, B].
        done: [T, B] bool, the step ended its episode.
        discount: [] gamma of the return.

    Returns:
        The scale after the rollout, and rewards ``[T, B]`` within +-10.
    """
    chex.assert_equal_shape([reward, done])

    def body(running: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        sum_ = discount * running + step[0]
        return jnp.where(step[1], 0.0, sum_), sum_

    running, sums = jax.lax.scan(body, scale.running, (reward, done))
    moments = with_batch(scale.moments, sums)
    scaled = reward * jax.lax.rsqrt(moments.variance + _EPS)
    return ReturnScale(running, moments), jnp.clip(scaled, -_CLIP, _CLIP)
