"""A small transformer: pre-norm, no biases, and blocks that can be walked along a stream.

It maps symbols to features of every position, causally or not, and knows neither losses nor heads. Positions
enter as rotations of queries and keys (Su et al. 2021, arXiv:2104.09864) or as a bias against distance, one
slope a head (Press et al. 2022, arXiv:2108.12409): only distances matter, so that what a position's key and
value are does not depend on where a window begins, and they can be kept.
``locality`` adds a fixed bias of that kind, made symmetric: a fresh network then sees neighbours first.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Block", "Transformer", "check_heads", "distance_bias", "rotations"]

_BASE = 10_000.0  # of the rotary frequencies
Rotation = tuple[Array, Array]  # cosine and sine, [S, d / 2] each
KeysAndValues = tuple[Array, Array]  # [L, H, d] each


class Transformer(nn.Module):
    """Symbols [S] to features [S, width].

    Attributes:
        vocabulary: V, symbols.
        width, layers, heads: sizes; heads divide the width into even parts.
        causal: a position sees none after it.
        locality: bias the attention against distance.
        remat: recompute each block in the backward pass.
        dtype: of the activations; parameters are float32.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    causal: bool
    locality: bool = False
    remat: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Features [S, width] of symbols [S]."""
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="embed")(tokens)
        positions = jnp.arange(tokens.shape[0])
        bias = _attention_bias(tokens.shape[0], self.heads, self.causal, self.locality)
        turned = rotations(positions, self.width // self.heads)
        block = nn.remat(Block) if self.remat else Block
        for layer in range(self.layers):
            x = block(self.width, self.heads, self.dtype, name=f"block_{layer}")(x, bias, turned)
        return nn.RMSNorm(dtype=self.dtype, name="norm")(x)


class Block(nn.Module):
    """One layer: attention and a feed-forward of four times the width, each on the normalised stream.

    Attributes:
        width, heads: sizes.
        dtype: of the activations.
    """

    width: int
    heads: int
    dtype: Any = None

    def setup(self) -> None:
        """The layers, see flax."""
        self.q, self.k, self.v, self.out = (self._dense(self.width) for _ in range(4))
        self.rise, self.fall = self._dense(4 * self.width), self._dense(self.width)
        self.attention_norm, self.norm = nn.RMSNorm(dtype=self.dtype), nn.RMSNorm(dtype=self.dtype)

    def __call__(self, x: Array, bias: Array, turned: Rotation | None) -> Array:
        """All positions at once.

        Several streams are better given together than mapped over: the gradient of a weight is then one
        product over all their positions, which on a CPU takes a third of the time of a batched one.

        Args:
            x: [..., S, width].
            bias: [H, S, S], added to the logit of a position looking at another.
            turned: what each position's queries and keys are rotated by; None: they are not.
        """
        query, key, value = self._projected(x)
        if turned is not None:
            query, key = _rotated(query, turned), _rotated(key, turned)
        logits = jnp.einsum("...shd,...thd->...hst", query, key) / jnp.sqrt(query.shape[-1])
        weights, total = _weights(logits, bias)
        mixed = jnp.einsum("...hst,...thd->...shd", weights, value)
        return self._fed(x, mixed / jnp.swapaxes(total, -1, -2)[..., None])

    def step(
        self, x: Array, kept: KeysAndValues, slot: Array, bias: Array, turned: Rotation | None
    ) -> tuple[Array, KeysAndValues]:
        """One position, after ``L - 1`` others of which keys and values were kept.

        Args:
            x: [width].
            kept: of the slots, keys not rotated.
            slot: [] int32, where this position's own go.
            bias: [H, L], added to the logit of each slot.
            turned: what the key in each slot is rotated by, relative to this position; None: they are not.

        Returns:
            [width], and what is kept now.
        """
        query, key, value = (one[0] for one in self._projected(x[None]))
        keys, values = kept[0].at[slot].set(key), kept[1].at[slot].set(value)
        seen = keys if turned is None else _rotated(keys, turned)
        logits = jnp.einsum("hd,thd->ht", query, seen) / jnp.sqrt(query.shape[-1])
        weights, total = _weights(logits, bias)
        return self._fed(x, jnp.einsum("ht,thd->hd", weights, values) / total[:, None]), (keys, values)

    def _projected(self, x: Array) -> tuple[Array, Array, Array]:
        """Query, key and value [..., S, H, d] of [..., S, width]."""
        normed = self.attention_norm(x.reshape(-1, self.width))
        shape = (*x.shape[:-1], self.heads, self.width // self.heads)
        return tuple(project(normed).reshape(shape) for project in (self.q, self.k, self.v))  # pyright: ignore

    def _fed(self, x: Array, mixed: Array) -> Array:
        """[..., width] with what the attention mixed [..., H, d] and the feed-forward added."""
        rows = x.reshape(-1, self.width)
        rows = rows + self.out(mixed.reshape(rows.shape))
        return (rows + self.fall(nn.gelu(self.rise(self.norm(rows))))).reshape(x.shape)

    def _dense(self, size: int) -> nn.Dense:
        return nn.Dense(size, use_bias=False, dtype=self.dtype)


def check_heads(width: int, heads: int) -> None:
    """Refuses heads that rotary positions cannot turn.

    Raises:
        ValueError: they do not divide the width into even parts.
    """
    if width % (2 * heads):
        raise ValueError(
            f"heads={heads} do not divide width={width} into even parts; try heads={max(1, width // 16)}"
        )


def rotations(positions: Array, size: int) -> Rotation:
    """Cosine and sine [S, d / 2] of the angles of ``positions`` [S], for heads of ``size`` d."""
    half = size // 2
    angle = positions[:, None] * _BASE ** (-jnp.arange(half) / half)
    return jnp.cos(angle), jnp.sin(angle)


def distance_bias(distance: Array, slopes: Array) -> Array:
    """[H, ...] what is added to logits over a ``distance`` [...], for the heads' ``slopes`` [H]."""
    return -slopes.reshape(-1, *(1,) * distance.ndim) * jnp.abs(distance)


def _weights(logits: Array, bias: Array) -> tuple[Array, Array]:
    """Weights [..., S, T] of a softmax over T and their sums [..., S], by which the mixture is divided.

    Dividing what was mixed spares two passes over the weights; they are computed in float32 at least.
    """
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) + bias
    weights = jnp.exp(wide - jax.lax.stop_gradient(jnp.max(wide, axis=-1, keepdims=True)))
    return weights.astype(logits.dtype), jnp.sum(weights, axis=-1).astype(logits.dtype)


def _attention_bias(length: int, heads: int, causal: bool, locality: bool) -> Array:
    """[H, S, S] what is added to the logit of position s looking at t."""
    distance = jnp.arange(length)[:, None] - jnp.arange(length)[None, :]
    bias = jnp.zeros((heads, length, length))
    if locality:
        bias = bias + distance_bias(distance, 2.0 ** -jnp.arange(heads, dtype=jnp.float32))
    return jnp.where(distance < 0, -jnp.inf, bias) if causal else bias


def _rotated(x: Array, turned: Rotation) -> Array:
    """[..., S, H, d] with the pairs (x_i, x_{i + d/2}) turned by each position's angles."""
    cos, sin = (part[:, None].astype(x.dtype) for part in turned)
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
