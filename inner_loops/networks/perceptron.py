"""A multilayer perceptron in flax.linen, without anything of an agent about it."""

from __future__ import annotations

import flax.linen as nn
from jax import Array

__all__ = ["Perceptron"]


class Perceptron(nn.Module):
    """Features [F] to ``[out]``, or to the last hidden layer where there is no output.

    Attributes:
        hidden: units of the hidden layers, each followed by a ReLU.
        out: linear outputs; 0: none.
    """

    hidden: tuple[int, ...]
    out: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """One example."""
        for index, size in enumerate(self.hidden):
            x = nn.relu(nn.Dense(size, name=f"hidden_{index}")(x))
        return nn.Dense(self.out, name="out")(x) if self.out else x
