"""A causal language model on symbols: a transformer that predicts the next symbol (Radford et al. 2019).

The loss of a window is the mean over its positions of the next symbol's negative log-likelihood, in nats.
The matrix of the embedding is the output's as well (tied).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.transformer import Transformer, check_heads
from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["LanguageModel"]

_TYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@component
class LanguageModel:
    """Causal transformer with rotary positions that predicts the next symbol of a window."""

    width: int = static(32, doc="features of a position", at_least=2)
    layers: int = static(1, doc="blocks", at_least=1)
    heads: int = static(2, doc="of the attention; they divide the width into even parts", at_least=1)
    remat: bool = static(False, doc="recompute each block in the backward pass")
    activations: str = static("float32", doc="their type; parameters are float32", choices=tuple(_TYPES))

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def init(self, key: Array, stream: Any) -> PyTree:
        """See ``Model``; the stream says ``vocabulary`` and ``window``."""
        return self._network(stream.vocabulary).init(key, jnp.zeros(stream.window, jnp.int32))

    def loss(self, params: PyTree, example: Array) -> Array:
        """See ``Model``: nats per symbol of a window [S]."""
        embedding = params["params"]["embed"]["embedding"]
        features = self._network(embedding.shape[0]).apply(params, example[:-1])
        logits = (features @ embedding.T.astype(features.dtype)).astype(jnp.float32)  # pyright: ignore
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_probs, example[1:, None], axis=1))

    def cost(self, stream: Any) -> float:
        """See ``Model``."""
        parameters = 12 * self.layers * self.width**2 + stream.vocabulary * self.width
        return 2.0 * parameters * stream.window

    def _network(self, vocabulary: int) -> Transformer:
        return Transformer(
            vocabulary,
            self.width,
            self.layers,
            self.heads,
            causal=True,
            remat=self.remat,
            dtype=_TYPES[self.activations],
        )
