"""State indices that count through a grid, seen factor by factor: a cell as its row and its column."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

__all__ = ["check_factors", "factored", "factored_size"]


def check_factors(factors: tuple[int, ...] | None, states: int) -> None:
    """Refuses factors that do not make up a world's observations.

    Raises:
        ValueError: their product is not the number of observations.
    """
    if factors is not None and math.prod(factors) != states:
        raise ValueError(
            f"factors={list(factors)} make {math.prod(factors)} states, and the world has "
            f"{states}: give factors whose product that is, or null"
        )


def factored_size(factors: tuple[int, ...] | None, states: int) -> int:
    """Entries of what ``factored`` makes of a vector of ``states`` entries."""
    return states if factors is None else sum(factors)


def factored(one_hot: Array, factors: tuple[int, ...] | None) -> Array:
    """[..., sum of factors] every factor one-hot, one after the other.

    Args:
        one_hot: [..., S] a state index, one-hot.
        factors: sizes of the grid that the index counts through, the last one fastest. None: as it is.
    """
    if factors is None:
        return one_hot
    lead = one_hot.ndim - 1
    grid = one_hot.reshape(*one_hot.shape[:-1], *factors)
    axes = range(lead, grid.ndim)
    each = [jnp.sum(grid, axis=tuple(other for other in axes if other != axis)) for axis in axes]
    return jnp.concatenate(each, axis=-1)
