"""Raters: what gives an example its score, from the example alone.

Only differences between the scores of a batch matter (they go into a softmax), so a rater has no bias at its
end. Heads begin at zero: every example weighs the same at first.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.data.labelled import Labelled
from inner_loops.networks.perceptron import Perceptron
from inner_loops.networks.transformer import Transformer, check_heads
from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["FeatureRater", "Rater", "TransformerRater"]


class Rater(Protocol):
    """Parameters and a score; unbatched."""

    def init(self, key: Array, stream: Any) -> PyTree:
        """Fresh parameters for the examples of a stream."""
        ...

    def score(self, params: PyTree, example: PyTree) -> Array:
        """[] float32, higher is better."""
        ...

    def cost(self, stream: Any) -> float:
        """Multiplications and additions of one score, counted as for ``Model.cost``."""
        ...


@component
class TransformerRater:
    """Bidirectional transformer over a window, features averaged over positions (Calian et al. 2025)."""

    width: int = static(32, doc="features of a position", at_least=2)
    layers: int = static(2, doc="blocks", at_least=1)
    heads: int = static(2, doc="of the attention; they divide the width into even parts", at_least=1)
    locality: bool = static(True, doc="bias the attention towards neighbours")

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def init(self, key: Array, stream: Any) -> PyTree:
        """See ``Rater``; the stream says ``vocabulary`` and ``window``."""
        body = self._network(stream.vocabulary).init(key, jnp.zeros(stream.window, jnp.int32))
        return {"body": body, "head": jnp.zeros(self.width)}

    def score(self, params: PyTree, example: Array) -> Array:
        """See ``Rater``; of a window [S]."""
        vocabulary = params["body"]["params"]["embed"]["embedding"].shape[0]
        features: Any = self._network(vocabulary).apply(params["body"], example)
        return jnp.mean(features, axis=0) @ params["head"]

    def cost(self, stream: Any) -> float:
        """See ``Rater``."""
        return 2.0 * 12 * self.layers * self.width**2 * stream.window

    def _network(self, vocabulary: int) -> Transformer:
        return Transformer(
            vocabulary, self.width, self.layers, self.heads, causal=False, locality=self.locality
        )


@component
class FeatureRater:
    """Multilayer perceptron on an example's given features and its label: classic data weighting."""

    hidden: int = static(64, doc="units of each of its two hidden layers", at_least=1)

    def init(self, key: Array, stream: Any) -> PyTree:
        """See ``Rater``; the stream says ``num_features`` and ``num_labels``."""
        body = self._network().init(key, jnp.zeros(stream.num_features + stream.num_labels))
        return {"body": body, "head": jnp.zeros(self.hidden)}

    def score(self, params: PyTree, example: Labelled) -> Array:
        """See ``Rater``."""
        size = params["body"]["params"]["hidden_0"]["kernel"].shape[0] - example.features.shape[-1]
        inputs = jnp.concatenate([example.features, jax.nn.one_hot(example.label, size)])
        features: Any = self._network().apply(params["body"], inputs)
        return features @ params["head"]

    def cost(self, stream: Any) -> float:
        """See ``Rater``."""
        return 2.0 * self.hidden * (stream.num_features + stream.num_labels + self.hidden)

    def _network(self) -> Perceptron:
        return Perceptron((self.hidden, self.hidden))
