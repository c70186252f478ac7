"""Feed-forward and convolutional agents in flax.linen, with one dense head per output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["ConvNetwork", "MlpNetwork"]


class _Heads(nn.Module):
    """ReLU torso and linear heads; the policy's head starts at zero, the uniform policy."""

    channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, obs: Array) -> dict[str, Array]:
        hidden = jnp.asarray(obs, jnp.result_type(float))
        for width in self.channels:
            hidden = nn.relu(nn.Conv(width, (3, 3))(hidden))
        hidden = hidden.reshape(-1)
        for width in self.hidden_sizes:
            hidden = nn.relu(nn.Dense(width)(hidden))
        zero, usual = nn.initializers.zeros_init(), nn.initializers.lecun_normal()
        return {
            name: nn.Dense(size, name=name, kernel_init=zero if name == "logits" else usual)(hidden)
            for name, size in self.heads
        }


def _module(heads: Mapping[str, int], hidden: tuple[int, ...], channels: tuple[int, ...]) -> _Heads:
    return _Heads(channels=channels, hidden_sizes=hidden, heads=tuple(sorted(heads.items())))


def _example(environment: Any) -> Array:
    if environment.num_states is not None:
        raise ValueError(f"{environment} observes state indices: choose network tabular")
    return jnp.zeros(environment.observation_shape)


@component
class MlpNetwork:
    """Multi-layer perceptron on the flattened observation."""

    hidden_sizes: tuple[int, ...] = static((64, 64), doc="units of the hidden layers")

    def init(self, key: Array, heads: Mapping[str, int], environment: Any) -> PyTree:
        """Flax parameters; ValueError where observations are state indices."""
        return _module(heads, self.hidden_sizes, ()).init(key, _example(environment))

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """Outputs by head."""
        return _module(heads, self.hidden_sizes, ()).apply(params, obs)  # pyright: ignore[reportReturnType]


@component
class ConvNetwork:
    """3x3 convolutions on ``[height, width, channels]`` observations, then a multi-layer perceptron."""

    channels: tuple[int, ...] = static((16,), doc="channels of the convolutions")
    hidden_sizes: tuple[int, ...] = static((32,), doc="units of the hidden layers")

    def init(self, key: Array, heads: Mapping[str, int], environment: Any) -> PyTree:
        """Flax parameters; ValueError where observations are not images."""
        example = _example(environment)
        if example.ndim != 3:
            raise ValueError(
                f"a convolutional network needs [height, width, channels] observations, and {environment} "
                f"observes shape {example.shape}: choose network mlp"
            )
        return _module(heads, self.hidden_sizes, self.channels).init(key, example)

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """Outputs by head."""
        module = _module(heads, self.hidden_sizes, self.channels)
        return module.apply(params, obs)  # pyright: ignore[reportReturnType]
