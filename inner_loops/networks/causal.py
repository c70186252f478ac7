"""A causal transformer that sees so many positions back, over a whole stream or along it.

Every position attends to itself and the ``context - 1`` before it, in every layer: the attention is banded.
Keys and values then depend on the stream alone and not on where reading began, so that those of the last
``context`` positions can be kept in a ring, and a step costs O(context x width) instead of a forward pass
over the window. Exactly: ``step`` from ``empty``, position after position, gives what ``__call__`` gives over
the whole stream from its first position, however often the ring has wrapped. It is *not* a forward pass over
the last ``context`` positions alone: with several layers what is kept has itself seen positions further back.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.transformer import Block, KeysAndValues, Rotation, distance_bias, rotations

__all__ = ["POSITIONS", "CausalStack", "Kept"]

POSITIONS = ("alibi", "rotary")


class Kept(NamedTuple):
    """What was kept of a stream.

    Attributes:
        layers: keys (not rotated) and values [L, H, d] of each layer, in a ring.
        length: [] int32, positions heard so far.
    """

    layers: tuple[KeysAndValues, ...]
    length: Array


class CausalStack(nn.Module):
    """Blocks with banded causal attention.

    Attributes:
        width, layers, heads: sizes.
        context: L, positions that one sees, itself included.
        positions: how distance is told: ``alibi`` (a bias, slopes ``2^(-8 h / H)``) or ``rotary``.
    """

    width: int
    layers: int
    heads: int
    context: int
    positions: str

    def setup(self) -> None:
        """The layers, see flax."""
        self.blocks = [Block(self.width, self.heads) for _ in range(self.layers)]
        self.norm = nn.RMSNorm()

    def __call__(self, x: Array) -> Array:
        """[..., S, width] to [..., S, width]."""
        place = jnp.arange(x.shape[-2])
        distance = place[:, None] - place[None, :]
        bias = self._bias(distance, (distance >= 0) & (distance < self.context))
        turned = self._turned(place)
        for block in self.blocks:
            x = block(x, bias, turned)
        return self.norm(x)

    def step(self, kept: Kept, x: Array) -> tuple[Kept, Array]:
        """One position [width] after those that were kept."""
        slot = kept.length % self.context
        distance = (slot - jnp.arange(self.context)) % self.context
        bias, turned = self._bias(distance, distance <= kept.length), self._turned(-distance)
        layers = []
        for block, layer in zip(self.blocks, kept.layers, strict=True):
            x, layer = block.step(x, layer, slot, bias, turned)
            layers.append(layer)
        return Kept(tuple(layers), kept.length + 1), self.norm(x)

    def empty(self) -> Kept:
        """Nothing kept."""
        zeros = jnp.zeros((self.context, self.heads, self.width // self.heads))
        return Kept(((zeros, zeros),) * self.layers, jnp.zeros((), jnp.int32))

    def _bias(self, distance: Array, seen: Array) -> Array:
        """[H, ...] for distances and whether that position is seen, [...]."""
        slopes = 2.0 ** (-8.0 * jnp.arange(1, self.heads + 1) / self.heads)
        told = (
            distance_bias(distance, slopes)
            if self.positions == "alibi"
            else jnp.zeros((self.heads, *distance.shape))
        )
        return jnp.where(seen, told, -jnp.inf)

    def _turned(self, places: Array) -> Rotation | None:
        return rotations(places, self.width // self.heads) if self.positions == "rotary" else None
