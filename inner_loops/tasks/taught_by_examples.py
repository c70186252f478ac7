"""Lives of learners that are taught by examples: the stream is everyone's, only lengths of life are set."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from inner_loops.data.base import Stream
from inner_loops.data.text import TextStream
from metalab.components import component, number, part
from metalab.protocols import Task

__all__ = ["TaughtByExamples"]


@component
class TaughtByExamples:
    """One stream of examples for all lives, of equal length."""

    stream: Stream = part(TextStream(), doc="where the examples come from", group="stream")
    lifetime: int = number(240, doc="inner updates", at_least=1)

    def sample(self, key: Array) -> Task:
        """A life; the learner draws its examples itself."""
        del key
        return Task(params=(), lifetime=jnp.asarray(self.lifetime, jnp.int32))
