"""Action-value networks: a torso and a stream of layers for each head, and how heads become action values.

Dueling networks (Wang et al. 2016, arXiv:1511.06581) have one stream for the state's value and one for the
actions' advantages. The outputs are heads by name, so that every network of the catalogue can be a
Q-network; those without streams of their own share all hidden layers between the two heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["StreamNetwork", "action_values", "q_heads"]


def q_heads(num_actions: int, dueling: bool) -> dict[str, int]:
    """The heads that ``action_values`` wants of a network."""
    return {"value": 1, "advantage": num_actions} if dueling else {"q": num_actions}


def action_values(outputs: Mapping[str, Array]) -> Array:
    """[..., A] action values from a network's heads; dueling heads by eq. 9 of Wang et al. (2016)."""
    if "q" in outputs:
        return outputs["q"]
    advantage = outputs["advantage"]
    return outputs["value"] + advantage - jnp.mean(advantage, axis=-1, keepdims=True)


class _Streams(nn.Module):
    """ReLU torso, then for each head ReLU layers of its own and a linear output."""

    channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    stream_sizes: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(self, obs: Array) -> dict[str, Array]:
        shared = jnp.asarray(obs, jnp.result_type(float))
        for width in self.channels:
            shared = nn.relu(nn.Conv(width, (3, 3))(shared))
        shared = shared.reshape(-1)
        for width in self.hidden_sizes:
            shared = nn.relu(nn.Dense(width)(shared))
        outputs = {}
        for name, size in self.heads:
            hidden = shared
            for width in self.stream_sizes:
                hidden = nn.relu(nn.Dense(width)(hidden))
            outputs[name] = nn.Dense(size, name=name)(hidden)
        return outputs


@component
class StreamNetwork:
    """Multi-layer or convolutional torso with a stream of layers of its own for each head."""

    channels: tuple[int, ...] = static(
        (), doc="channels of 3x3 convolutions; none: observations are flattened"
    )
    hidden_sizes: tuple[int, ...] = static((64,), doc="units of the layers that the heads share")
    stream_sizes: tuple[int, ...] = static((64,), doc="units of the layers that each head has for itself")

    def init(self, key: Array, heads: Mapping[str, int], environment: Any) -> PyTree:
        """Flax parameters.

        Raises:
            ValueError: observations are state indices, or no images where ``channels`` are given.
        """
        shape = environment.observation_shape
        if environment.num_states is not None:
            raise ValueError(f"{environment} observes state indices: choose network tabular")
        if self.channels and len(shape) != 3:
            raise ValueError(
                f"channels={self.channels} need [height, width, channels] observations, and {environment} "
                f"observes shape {shape}: choose channels=()"
            )
        return self._module(heads).init(key, jnp.zeros(shape))

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """Outputs by head for one observation."""
        return self._module(heads).apply(params, obs)  # pyright: ignore[reportReturnType]

    def _module(self, heads: Mapping[str, int]) -> _Streams:
        return _Streams(self.channels, self.hidden_sizes, self.stream_sizes, tuple(sorted(heads.items())))
