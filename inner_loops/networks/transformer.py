"""A small transformer: pre-norm, rotary positions (Su et al. 2021, arXiv:2104.09864), no biases.

It maps symbols to features of every position, causally or not, and knows neither losses nor heads.
``locality`` adds a fixed bias against distance to the attention, one slope a head (Press et al. 2022,
arXiv:2108.12409, made symmetric): a fresh network then sees neighbours first.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Transformer"]

_BASE = 10_000.0  # of the rotary frequencies


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
        bias = _attention_bias(tokens.shape[0], self.heads, self.causal, self.locality)
        block = nn.remat(_Block) if self.remat else _Block
        for layer in range(self.layers):
            x = block(self.width, self.heads, self.dtype, name=f"block_{layer}")(x, bias)
        return nn.RMSNorm(dtype=self.dtype, name="norm")(x)


class _Block(nn.Module):
    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, bias: Array) -> Array:
        """One layer, [S, width] to [S, width]; ``bias`` [H, S, S] is added to the attention's logits."""
        x = x + self._attention(nn.RMSNorm(dtype=self.dtype)(x), bias)
        hidden = self._dense(4 * self.width, "rise")(nn.RMSNorm(dtype=self.dtype)(x))
        return x + self._dense(self.width, "fall")(nn.gelu(hidden))

    def _attention(self, x: Array, bias: Array) -> Array:
        shape = (x.shape[0], self.heads, self.width // self.heads)
        query, key, value = (self._dense(self.width, name)(x).reshape(shape) for name in ("q", "k", "v"))
        logits = jnp.einsum("shd,thd->hst", _rotated(query), _rotated(key)) / jnp.sqrt(shape[-1])
        weights = jax.nn.softmax(logits.astype(jnp.float32) + bias).astype(x.dtype)
        mixed = jnp.einsum("hst,thd->shd", weights, value).reshape(x.shape)
        return self._dense(self.width, "out")(mixed)

    def _dense(self, size: int, name: str) -> nn.Dense:
        return nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)


def _attention_bias(length: int, heads: int, causal: bool, locality: bool) -> Array:
    """[H, S, S] what is added to the logit of position s looking at t."""
    distance = jnp.arange(length)[:, None] - jnp.arange(length)[None, :]
    bias = jnp.zeros((heads, length, length))
    if locality:
        slopes = 2.0 ** -jnp.arange(heads, dtype=jnp.float32)
        bias = bias - slopes[:, None, None] * jnp.abs(distance)
    return jnp.where(distance < 0, -jnp.inf, bias) if causal else bias


def _rotated(x: Array) -> Array:
    """[S, H, d] with the pairs (x_i, x_{i + d/2}) turned by an angle that grows with the position."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[0])[:, None] * _BASE ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle)[:, None].astype(x.dtype), jnp.sin(angle)[:, None].astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
