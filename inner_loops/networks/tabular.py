"""Tables: one row of outputs per state, read by a gather and never by a one-hot product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, number
from metalab.protocols import PyTree

__all__ = ["TabularNetwork"]


@component
class TabularNetwork:
    """Tabular agent: a row per state index and head.

    Policy logits start at zero (the uniform policy); other heads start at ``init_scale`` times a standard
    normal, so that a prediction vector differs between states from birth.
    """

    init_scale: float = number(0.1, doc="standard deviation of the heads other than the policy", at_least=0.0)

    def init(self, key: Array, heads: Mapping[str, int], environment: Any) -> PyTree:
        """Tables ``[num_states, size]`` by head name.

        Raises:
            ValueError: the environment's observations are not state indices.
        """
        if environment.num_states is None:
            raise ValueError(
                f"a tabular network needs state indices, and {environment} observes "
                f"{environment.observation_shape} arrays: choose network mlp or conv"
            )
        tables = {}
        for name, head_key in zip(sorted(heads), jax.random.split(key, len(heads)), strict=True):
            shape = (environment.num_states, heads[name])
            noise = jax.random.normal(head_key, shape)
            tables[name] = jnp.zeros(shape) if name == "logits" else self.init_scale * noise
        return tables

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """The state's rows."""
        return {name: params[name][obs] for name in heads}
