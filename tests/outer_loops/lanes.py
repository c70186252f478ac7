"""Outer loops side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import Array

from metalab.protocols import OuterLoop
from metalab.trees import lane, stack


def check_lanes_equal_single_runs(points: Sequence[OuterLoop]) -> None:
    """Two outer steps of loops that differ in numbers are the same vmapped and alone.

    Raises:
        AssertionError: they are not.
    """

    def two_steps(outer: OuterLoop, key: Array) -> Any:
        state, _ = outer.step(key, outer.init(key), None)
        return outer.step(jax.random.fold_in(key, 1), state, None)

    keys = jnp.stack([jax.random.key(index) for index in range(len(points))])
    together = jax.jit(jax.vmap(two_steps))(stack(points), keys)
    for index, point in enumerate(points):
        alone = jax.jit(two_steps)(point, keys[index])
        chex.assert_trees_all_close(lane(together, index), alone, rtol=1e-4, atol=1e-6)
