"""A tower of its own for every head: the separate policy and value networks of PPO.

Weights are orthogonal with gain sqrt(2) in hidden layers, 0.01 in the policy's head, so that the first policy
is close to uniform, and 1 in the others; biases are zero (as in the reference implementation of Schulman et
al. 2017, arXiv:1707.06347).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["TowerNetwork", "orthogonal"]

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
_POLICY_HEADS = ("logits", "mean")


@component
class TowerNetwork:
    """Separate multi-layer perceptrons on the flattened observation, one per head (PPO)."""

    hidden_sizes: tuple[int, ...] = static((64, 64), doc="units of the hidden layers of each tower")
    activation: str = static("tanh", doc="of the hidden layers", choices=tuple(_ACTIVATIONS))

    def init(self, key: Array, heads: Mapping[str, int], environment: Any) -> PyTree:
        """Head name to its layers ``{"weight": [in, out], "bias": [out]}``.

        Raises:
            ValueError: the environment's observations are state indices.
        """
        if environment.num_states is not None:
            raise ValueError(f"{environment} observes state indices: choose network tabular")
        width = math.prod(environment.observation_shape)
        names = sorted(heads)
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        return {name: self._tower(keys[name], name, width, heads[name]) for name in names}

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """Outputs by head; the towers of other heads are not computed."""
        return {name: self._run(params[name], obs) for name in heads}

    def _tower(self, key: Array, name: str, width: int, size: int) -> list[dict[str, Array]]:
        widths = (width, *self.hidden_sizes, size)
        gains = [math.sqrt(2.0)] * len(self.hidden_sizes) + [0.01 if name in _POLICY_HEADS else 1.0]
        keys = jax.random.split(key, len(gains))
        return [
            {
                "weight": orthogonal(keys[i], (widths[i], widths[i + 1]), gain),
                "bias": jnp.zeros(widths[i + 1]),
            }
            for i, gain in enumerate(gains)
        ]

    def _run(self, layers: list[dict[str, Array]], obs: Array) -> Array:
        hidden = jnp.asarray(obs, jnp.result_type(float)).reshape(-1)
        for layer in layers[:-1]:
            hidden = _ACTIVATIONS[self.activation](hidden @ layer["weight"] + layer["bias"])
        return hidden @ layers[-1]["weight"] + layers[-1]["bias"]


def orthogonal(key: Array, shape: tuple[int, int], gain: float) -> Array:
    """An orthogonal matrix times ``gain``; under ``vmap`` one after another.

    Batched QR decompositions that run side by side wait for each other for ever where they are more than
    the threads of XLA's pool (seen with jaxlib 0.10 on two cores).
    """
    return _orthogonal(shape, gain)(key)


@functools.cache
def _orthogonal(shape: tuple[int, int], gain: float) -> Any:
    initialize = jax.nn.initializers.orthogonal(gain)
    return jax.custom_batching.sequential_vmap(lambda key: initialize(key, shape))
