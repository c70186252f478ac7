"""Policy and action-value networks for continuous actions (Lillicrap et al. 2016, arXiv:1509.02971).

Rectified layers; a layer's weights and biases begin uniform within one over the root of its inputs, those of
the last layer within 3e-3, so that the first actions are near the middle and the first values near zero.

**Deviation**: the critic reads the action in its first layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Layers", "action_value", "deterministic_action", "init_critic", "init_policy"]

Layers = list[dict[str, Array]]
_LAST = 3e-3


def init_policy(
    key: Array, obs_shape: tuple[int, ...], hidden_sizes: Sequence[int], action_size: int
) -> Layers:
    """Layers of a policy with ``D = action_size`` outputs."""
    return _init(key, (math.prod(obs_shape), *hidden_sizes, action_size))


def deterministic_action(layers: Layers, obs: Array) -> Array:
    """[N, D] actions in [-1, 1] for observations ``[N, ...]``."""
    return jnp.tanh(_run(layers, _flat(obs)))


def init_critic(
    key: Array, obs_shape: tuple[int, ...], hidden_sizes: Sequence[int], action_size: int, outputs: int
) -> Layers:
    """Layers of a critic: one output for a scalar value, one per atom for a distribution."""
    return _init(key, (math.prod(obs_shape) + action_size, *hidden_sizes, outputs))


def action_value(layers: Layers, obs: Array, action: Array) -> Array:
    """[N, outputs] for observations ``[N, ...]`` and actions ``[N, D]``."""
    return _run(layers, jnp.concatenate([_flat(obs), action], axis=-1))


def _flat(obs: Array) -> Array:
    return jnp.asarray(obs, jnp.result_type(float)).reshape(obs.shape[0], -1)


def _init(key: Array, widths: Sequence[int]) -> Layers:
    limits = [1.0 / math.sqrt(width) for width in widths[:-2]] + [_LAST]
    layers = []
    for limit, inputs, outputs, layer_key in zip(
        limits, widths[:-1], widths[1:], jax.random.split(key, len(limits)), strict=True
    ):
        drawn = jax.random.uniform(layer_key, (inputs + 1, outputs), minval=-limit, maxval=limit)
        layers.append({"weight": drawn[:-1], "bias": drawn[-1]})
    return layers


def _run(layers: Layers, inputs: Array) -> Array:
    hidden = inputs
    for layer in layers[:-1]:
        hidden = jax.nn.relu(hidden @ layer["weight"] + layer["bias"])
    return hidden @ layers[-1]["weight"] + layers[-1]["bias"]
