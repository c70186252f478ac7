"""Exploration: epsilon-greedy choice of discrete actions with a linear schedule."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from metalab.components import component, number

__all__ = ["EpsilonGreedy", "epsilon_greedy"]


@component
class EpsilonGreedy:
    """A random action with a probability that falls linearly with the environment steps lived."""

    start: float = number(1.0, doc="probability of a random action at birth", at_least=0.0, at_most=1.0)
    end: float = number(0.05, doc="probability once the schedule is over", at_least=0.0, at_most=1.0)
    steps: float = number(10_000.0, doc="environment steps of the schedule", above=0.0)

    def epsilon(self, steps: Array) -> Array:
        """[] probability of a random action after ``steps`` [] environment steps."""
        return self.start + jnp.clip(steps / self.steps, 0.0, 1.0) * (self.end - self.start)


def epsilon_greedy(uniform: Array, values: Array, epsilon: Array, mask: Array) -> Array:
    """The best allowed action, or with probability ``epsilon`` any of the allowed ones.

    One random number decides both: below ``epsilon`` it is, once divided by it, uniform again.

    Args:
        uniform: [] in [0, 1).
        values: [A] of the actions.
        epsilon: [] in [0, 1].
        mask: [A] bool, the actions that are allowed; at least one is.

    Returns:
        [] int32.
    """
    allowed = jnp.cumsum(mask)
    # floor(u / epsilon * allowed) counts the allowed actions before the one that is drawn; with epsilon 0 it
    # is infinite and not used.
    drawn = jnp.minimum(jnp.floor(uniform / epsilon * allowed[-1]), allowed[-1] - 1)
    anything = jnp.argmax(allowed > drawn)
    best = jnp.argmax(jnp.where(mask, values, -jnp.inf))
    return jnp.where(uniform < epsilon, anything, best).astype(jnp.int32)
