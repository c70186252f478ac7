"""Lagrange multipliers of constraints ``J_C <= limit``, by projected gradient ascent.

``min over lambda >= 0 of max over theta of J_R - lambda (J_C - limit)``: the multiplier goes against its
gradient, ``lambda <- max(0, lambda + rate (J_C - limit))`` (reward constrained policy optimisation, Tessler
et al. 2018, arXiv:1805.11074). Plain steps: an adaptive optimiser moves as far for a small violation as for a
large one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, number, static

__all__ = ["Multiplier"]


@component
class Multiplier:
    """A Lagrange multiplier for each cost: where it begins and how it moves."""

    start: float = number(0.1, doc="lambda_0", at_least=0.0)
    rate: float = number(1e-3, doc="learning rate; 0: lambda stays, which is reward shaping", at_least=0.0)
    schedule: tuple[float, ...] = number(
        (0.0,), doc="logarithms of the rate's factor, `spacing` gradient steps apart; straight between"
    )
    spacing: float = number(500.0, doc="gradient steps between two entries of `schedule`", above=0.0)
    most: float = number(math.inf, doc="lambda never exceeds it", above=0.0)
    straight_through: bool = static(
        True, doc="derivatives pass a lambda at 0 or at `most` as if it were inside; else they are 0 there"
    )

    def factor(self, updates: Array) -> Array:
        """[] of the rate after so many gradient steps; beyond the schedule its last entry stays."""
        entries = jnp.asarray(self.schedule)
        place = updates / self.spacing
        return jnp.exp(jnp.interp(place, jnp.arange(entries.shape[0], dtype=entries.dtype), entries))

    def projected(self, value: Array) -> Array:
        """``value`` [C] moved into ``[0, most]``."""
        inside = jnp.clip(value, 0.0, self.most)
        return value + jax.lax.stop_gradient(inside - value) if self.straight_through else inside
