"""What students of Algorithm Distillation hear and how they speak: percepts as vectors, tempered logits."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes

__all__ = ["check_factors", "heard", "heard_sizes", "tempered"]

_OUTCOME = 3  # reward, end of an episode, and a constant


def check_factors(factors: tuple[int, ...] | None, sizes: Sizes) -> None:
    """Refuses factors that do not make up a world's observations.

    Raises:
        ValueError: their product is not the number of observations.
    """
    if factors is not None and math.prod(factors) != sizes.observations:
        raise ValueError(
            f"factors={list(factors)} make {math.prod(factors)} states, and the world has "
            f"{sizes.observations}: give factors whose product that is, or null"
        )


def heard_sizes(factors: tuple[int, ...] | None, sizes: Sizes) -> tuple[int, int, int]:
    """Entries of the three vectors of ``heard``."""
    return sum(factors) if factors is not None else sizes.observations, sizes.actions, _OUTCOME


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
    if factors is None:
        return percept.obs, percept.action, outcome
    lead = percept.obs.ndim - 1
    grid = percept.obs.reshape(*percept.obs.shape[:-1], *factors)
    axes = range(lead, grid.ndim)
    each = [jnp.sum(grid, axis=tuple(other for other in axes if other != axis)) for axis in axes]
    return jnp.concatenate(each, axis=-1), percept.action, outcome


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
