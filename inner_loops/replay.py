"""Experience replay (Lin 1992) as a ring on the device, sampled uniformly.

A batch is written in place by one update of a slice: the ring's capacity is a whole number of batches, so no
batch is split at its end. The newest ``size`` rows are what may be sampled; rows before them are whatever was
there.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

from inner_loops import draws
from metalab.protocols import PyTree

__all__ = ["Replay", "empty_replay"]


class Replay(NamedTuple):
    """A ring of ``C`` rows.

    Attributes:
        data: leaves ``[C, ...]``, in the dtypes that they were given.
        position: [] int32, the row that is written next.
        size: [] int32, rows that may be sampled, the newest ones; below zero: so many of the next rows are
            not to be sampled.
    """

    data: PyTree
    position: Array
    size: Array

    @property
    def capacity(self) -> int:
        """C."""
        return jax.tree.leaves(self.data)[0].shape[0]

    def add(self, rows: PyTree, counts: Array | None = None) -> Replay:
        """The ring with ``rows`` (leaves ``[B, ...]``) in place of its oldest ones.

        Args:
            rows: of the dtypes of the ring.
            counts: [] bool; where not, the ring stays as it is. To choose between two rings would copy both
                of them, this touches the rows alone.

        Raises:
            ValueError: the capacity is not a whole number of batches of this size.
        """
        count = jax.tree.leaves(rows)[0].shape[0]
        if self.capacity % count:
            raise ValueError(
                f"replay: its capacity ({self.capacity}) must be a multiple of the rows added at once "
                f"({count}); {-(-self.capacity // count) * count} is one"
            )
        chex.assert_trees_all_equal_dtypes(self.data, rows)

        def write(ring: Array, new: Array) -> Array:
            if counts is not None:
                old = jax.lax.dynamic_slice_in_dim(ring, self.position, count)
                new = jnp.where(counts, new, old)
            return jax.lax.dynamic_update_slice_in_dim(ring, new, self.position, axis=0)

        added = jnp.asarray(count if counts is None else jnp.where(counts, count, 0), jnp.int32)
        return Replay(
            data=jax.tree.map(write, self.data, rows),
            position=(self.position + added) % self.capacity,
            size=jnp.minimum(self.size + added, self.capacity),
        )

    def sample(self, key: Array, shape: tuple[int, ...]) -> PyTree:
        """Independent uniform draws, leaves ``[*shape, ...]``; arbitrary rows where nothing may be sampled.

        A whole update's minibatches are best drawn at once: the ring is then read outside of their loop.
        """
        # A float32 in [0, 1) has 2^23 values: too few to hit the rows of a large ring equally often.
        age = draws.randint(key, shape, 0, jnp.maximum(self.size, 1))
        rows = (self.position - 1 - age) % self.capacity
        return jax.tree.map(lambda ring: ring.at[rows].get(mode="promise_in_bounds"), self.data)


def empty_replay(example: PyTree, capacity: int, ignored: int = 0) -> Replay:
    """A ring without rows.

    Args:
        example: one row: leaves ``[...]`` whose shapes and dtypes the ring takes.
        capacity: C.
        ignored: the first rows that will be added and must never be sampled.
    """
    data = jax.tree.map(lambda leaf: jnp.zeros((capacity, *jnp.shape(leaf)), jnp.result_type(leaf)), example)
    return Replay(data, jnp.zeros((), jnp.int32), jnp.asarray(-ignored, jnp.int32))
