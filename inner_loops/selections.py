"""Selections: which of the examples that were drawn a learner is taught, and with what weight.

``softmax`` is how a rater is meta-trained: every example counts, by the softmax of its score over the batch.
The others are how a fresh learner is trained on what a judge keeps: a batch of N is the best N of
``N / (1 - discard)`` drawn, all with equal weight. The judge is the rater, a language model's perplexity,
chance, or an oracle that knows the levels.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.language_model import LanguageModel
from inner_loops.models import Model
from metalab.components import component, part, static
from metalab.optimizers import Adam, OptimizerSettings

__all__ = [
    "Everything",
    "LeastCorrupted",
    "LeastPerplexing",
    "RandomDiscard",
    "Selection",
    "Softmax",
    "TopRated",
    "candidates_for",
]


def _discard() -> Any:
    return static(0.75, doc="rho, share of the candidates that is not used", at_least=0.0, at_most=0.999)


class Selection(Protocol):
    """How a batch is made of examples and what is known of each.

    Attributes:
        reads: what each example is judged by: ``rating``, ``perplexity``, ``level`` or nothing.
    """

    reads: ClassVar[str]

    def candidates(self, batch_size: int) -> int:
        """How many examples are drawn for a batch of ``batch_size``."""
        ...

    def choose(self, key: Array, values: Array, batch_size: int) -> tuple[Array, Array]:
        """Positions [N] int32 of the batch among the candidates and weights [N] that sum to 1.

        ``values`` [C] are what ``reads`` names; zeros where it names nothing.
        """
        ...


@component
class Softmax:
    """All examples, weighted by the softmax of their ratings over the batch (Calian et al. 2025)."""

    reads: ClassVar[str] = "rating"

    def candidates(self, batch_size: int) -> int:
        """See ``Selection``."""
        return batch_size

    def choose(self, key: Array, values: Array, batch_size: int) -> tuple[Array, Array]:
        """See ``Selection``."""
        del key
        return jnp.arange(batch_size), jax.nn.softmax(values)


@component
class Everything:
    """All examples with equal weight: the data as it is."""

    reads: ClassVar[str] = ""

    def candidates(self, batch_size: int) -> int:
        """See ``Selection``."""
        return batch_size

    def choose(self, key: Array, values: Array, batch_size: int) -> tuple[Array, Array]:
        """See ``Selection``."""
        del key, values
        return jnp.arange(batch_size), _equal(batch_size)


class _BestOfDrawn:
    """The ``batch_size`` candidates with the largest ``sign`` times value."""

    discard: float
    sign: ClassVar[float] = 1.0

    def candidates(self, batch_size: int) -> int:
        """See ``Selection``."""
        return candidates_for(batch_size, self.discard)

    def choose(self, key: Array, values: Array, batch_size: int) -> tuple[Array, Array]:
        """See ``Selection``."""
        del key
        return jax.lax.top_k(self.sign * values, batch_size)[1], _equal(batch_size)


@component
class TopRated(_BestOfDrawn):
    """The best rated of the candidates."""

    reads: ClassVar[str] = "rating"
    discard: float = _discard()


@component
class LeastPerplexing(_BestOfDrawn):
    """The candidates that a reference model predicts best; it is trained first, on the data as it is."""

    reads: ClassVar[str] = "perplexity"
    sign: ClassVar[float] = -1.0
    discard: float = _discard()
    model: Model = part(LanguageModel(), doc="the reference model", group="model")
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=3e-3), doc="the reference model's", group="optimizer"
    )
    updates: int = static(400, doc="that the reference model is trained for", at_least=1)


@component
class LeastCorrupted(_BestOfDrawn):
    """The candidates with the lowest level of corruption: an oracle."""

    reads: ClassVar[str] = "level"
    sign: ClassVar[float] = -1.0
    discard: float = _discard()


@component
class RandomDiscard(_BestOfDrawn):
    """Any of the candidates: what discarding does when it knows nothing."""

    reads: ClassVar[str] = ""
    discard: float = _discard()

    def choose(self, key: Array, values: Array, batch_size: int) -> tuple[Array, Array]:
        """See ``Selection``."""
        return super().choose(key, jax.random.uniform(key, values.shape), batch_size)


def candidates_for(batch_size: int, discard: float) -> int:
    """Examples to draw so that ``batch_size`` are left when the share ``discard`` is thrown away.

    >>> candidates_for(32, 0.75)
    128
    """
    return max(batch_size, math.ceil(round(batch_size / (1.0 - discard), 6)))


def _equal(count: int) -> Array:
    return jnp.full(count, 1.0 / count)
