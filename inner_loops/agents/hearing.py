"""What students of Algorithm Distillation hear and how they speak: percepts as vectors, tempered logits."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from inner_loops.factors import factored, factored_size

__all__ = ["heard", "heard_sizes", "tempered"]

_OUTCOME = 3  # reward, end of an episode, and a constant


def heard_sizes(factors: tuple[int, ...] | None, sizes: Sizes) -> tuple[int, int, int]:
    """Entries of the three vectors of ``heard``."""
    return factored_size(factors, sizes.observations), sizes.actions, _OUTCOME


def heard(percept: Percept, factors: tuple[int, ...] | None) -> tuple[Array, Array, Array]:
    """A percept as three vectors: the observation, the action before it, and what that action led to.

    Args:
        percept: leaves ``[...]``, for example one step or ``[T]`` of them.
        factors: the observation is one-hot, and its index counts through a grid of these sizes, the last one
            fastest: every factor is heard one-hot, so that a cell is known by its row and its column. None:
            the observation is heard as it is.

    Returns:
        ``[..., O']``, ``[..., A]`` and ``[..., 3]`` (reward, end of an episode, 1).
    """
    outcome = jnp.stack([percept.reward, percept.done, jnp.ones_like(percept.done)], axis=-1)
    return factored(percept.obs, factors), percept.action, outcome


def tempered(logits: Array, temperature: Array | float, allowed: Array) -> Array:
    """Logits divided by the temperature; at zero those of the best allowed actions alone, equally.

    Args:
        logits: [A].
        temperature: [] at least 0.
        allowed: [A] bool.
    """
    masked = jnp.where(allowed, logits, -jnp.inf)
    greedy = jnp.where(masked == jnp.max(masked), 0.0, -jnp.inf)
    # The divisor of the branch that is not taken must not be zero either.
    return jnp.where(temperature > 0, logits / jnp.where(temperature > 0, temperature, 1.0), greedy)
