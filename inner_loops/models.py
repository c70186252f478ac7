"""What a learner that is taught by examples trains: a model with a loss of its own for every example."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.data.labelled import Labelled
from inner_loops.networks.perceptron import Perceptron
from metalab.components import component, static
from metalab.protocols import PyTree

__all__ = ["Classifier", "Model"]


class Model(Protocol):
    """Parameters and a loss; unbatched."""

    def init(self, key: Array, stream: Any) -> PyTree:
        """Fresh parameters for the examples of a stream."""
        ...

    def loss(self, params: PyTree, example: PyTree) -> Array:
        """[] float32 the loss of one example, normalised so that its length does not matter."""
        ...

    def cost(self, stream: Any) -> float:
        """Multiplications and additions of one example's loss, counted as 2 for each parameter and symbol."""
        ...


@component
class Classifier:
    """A multilayer perceptron on features, with the cross entropy of a label."""

    hidden: int = static(64, doc="units of its hidden layer", at_least=1)

    def init(self, key: Array, stream: Any) -> PyTree:
        """See ``Model``; the stream says ``num_features`` and ``num_labels``."""
        return self._network(stream.num_labels).init(key, jnp.zeros(stream.num_features))

    def loss(self, params: PyTree, example: Labelled) -> Array:
        """See ``Model``: nats."""
        labels = params["params"]["out"]["bias"].shape[0]
        logits = self._network(labels).apply(params, example.features)
        return -jax.nn.log_softmax(logits)[example.label]  # pyright: ignore

    def cost(self, stream: Any) -> float:
        """See ``Model``."""
        return 2.0 * self.hidden * (stream.num_features + stream.num_labels)

    def _network(self, labels: int) -> Perceptron:
        return Perceptron((self.hidden,), labels)
