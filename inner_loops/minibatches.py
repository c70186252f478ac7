"""Shuffled minibatches of a rollout's samples: which rows, in which order.

``sort`` sorts random keys, as ``jax.random.permutation`` does. ``swap_or_not`` computes where each row goes
by a keyed bijection (Hoang, Morris & Rogaway 2012, An enciphering scheme based on a card shuffle): in round
``r`` the rows ``x`` and ``K_r - x``, modulo their number, change places or not, by a hashed coin of the
pair. That is arithmetic on each row alone, which is vectorised where a sort is not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["SHUFFLES", "minibatch_rows", "permutation"]

SHUFFLES = ("swap_or_not", "sort")
_ROUNDS_PER_BIT = 4  # after fewer rounds the places of neighbours are still correlated


def minibatch_rows(
    key: Array, num_rows: int, epochs: int, minibatches: int, shuffle: str = "swap_or_not"
) -> Array:
    """[E * M, num_rows / M] int32: every row once in each epoch, each epoch in an order of its own.

    Raises:
        ValueError: the rows cannot be dealt out evenly, or the shuffle is none of ``SHUFFLES``.
    """
    if num_rows % minibatches:
        raise ValueError(f"{num_rows} samples cannot be dealt out evenly to {minibatches} minibatches")
    keys = jax.random.split(key, epochs)
    rows = jax.vmap(lambda one: permutation(one, num_rows, shuffle))(keys)
    return rows.reshape(epochs * minibatches, num_rows // minibatches)


def permutation(key: Array, count: int, shuffle: str) -> Array:
    """[count] int32, the numbers below ``count`` in random order."""
    if shuffle == "sort":
        return jax.random.permutation(key, jnp.arange(count, dtype=jnp.int32))
    if shuffle == "swap_or_not":
        return _swap_or_not(key, count)
    raise ValueError(f"unknown shuffle {shuffle!r}: expected one of {', '.join(SHUFFLES)}")


def _swap_or_not(key: Array, count: int) -> Array:
    rounds = _ROUNDS_PER_BIT * max(1, (count - 1).bit_length())
    words = jax.random.bits(key, (rounds, 2), jnp.uint32)
    pivots = (words[:, 0] % jnp.uint32(count)).astype(jnp.int32)
    rows = jnp.arange(count, dtype=jnp.int32)
    for index in range(rounds):
        partner = pivots[index] - rows
        partner = jnp.where(partner < 0, partner + count, partner)
        coin = _coin(jnp.maximum(rows, partner).astype(jnp.uint32) ^ words[index, 1])
        rows = jnp.where(coin, partner, rows)
    return rows


def _coin(word: Array) -> Array:
    """A bit of each uint32, by two rounds of multiply and shift: all bits of the word decide."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word >> 31 == 1
