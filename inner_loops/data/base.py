"""Streams of examples: what a learner that is taught by examples draws its batches from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jax import Array

from metalab.protocols import PyTree

__all__ = ["Examples", "Stream"]


class Examples(NamedTuple):
    """``N`` examples.

    Attributes:
        inputs: what a model learns from and a rater sees, leaves ``[N, ...]``.
        level: [N] how corrupted each one is, from 0 (clean) to 1: known to oracles and reports alone.
        kind: [N] int32, which of the stream's corruptions made it so.
    """

    inputs: PyTree
    level: Array
    kind: Array


class Stream(Protocol):
    """Examples in disjoint parts: to learn from, to be judged by, and two that are only reported."""

    @property
    def levels(self) -> tuple[float, ...]:
        """The corruption levels of the training part, in rising order."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of its corruptions, which ``Examples.kind`` counts."""
        ...

    def train(self, key: Array, count: int) -> Examples:
        """Draws from the training part, corrupted."""
        ...

    def outer(self, key: Array, count: int) -> Examples:
        """Draws from the part that the outer loss is about."""
        ...

    def validation(self, count: int) -> Examples:
        """The first examples of the part that nothing is trained on, clean."""
        ...

    def rated(self, count: int) -> Examples:
        """Examples of the same part, corrupted like the training part: for ratings to be judged by."""
        ...
