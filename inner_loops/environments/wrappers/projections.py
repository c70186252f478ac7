"""Observations and continuous actions through random matrices (Kirsch et al. 2022, arXiv:2212.04458).

Entries are independent and normal. Their variance is one over the entries projected to (of an observation:
squared lengths are kept in expectation) or over the agent's (of an action: entries of size one become such
again). No matrix is orthogonal: QR of many matrices at once can hang on a machine with two cores.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, static

__all__ = ["ActionProjection", "ObservationProjection"]


@component
class ObservationProjection(Wrapper):
    """Observations as vectors of ``size`` entries, by a random matrix drawn for each world.

    A state index becomes its own random vector. ``own``: [size, n].
    """

    size: int = static(16, doc="entries of the projected observation", at_least=1)

    @property
    def num_states(self) -> int | None:
        """None: vectors, not indices."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """(size,)."""
        return (self.size,)

    def draw(self, key: Array) -> Array:
        """A random matrix."""
        states = self.inside.num_states
        entries = math.prod(self.inside.observation_shape) if states is None else states
        return jax.random.normal(key, (self.size, entries)) / math.sqrt(self.size)

    def _observed(self, obs: Array, own: Array) -> Array:
        return own @ obs.reshape(-1) if self.inside.num_states is None else own[:, obs]


@component
class ActionProjection(Wrapper):
    """Continuous actions through a random matrix drawn for each world.

    The agent acts on ``[-1, 1]``; its action inside is scaled to the bounds there and clipped to them.
    ``own``: [n, size].
    """

    size: int = static(0, doc="entries of the agent's action; 0: as many as inside", at_least=0)

    @property
    def action_size(self) -> int | None:
        """``size``, or that of the environment inside."""
        return self.size or self._size_inside

    def action_bounds(self, params: WrappedParams) -> tuple[Array, Array]:
        """-1 and 1."""
        one = jnp.ones((self.action_size or 0,), jnp.float32)
        return -one, one

    def draw(self, key: Array) -> Array:
        """A random matrix."""
        entries = self.action_size or 0
        return jax.random.normal(key, (self._size_inside, entries)) / math.sqrt(entries)

    @property
    def _size_inside(self) -> int:
        """Entries of an action inside.

        Raises:
            ValueError: actions there are discrete.
        """
        entries = self.inside.action_size
        if entries is None:
            raise ValueError(
                f"action_projection: the actions of {self.inside} are discrete; use action_permutation"
            )
        return entries

    def _acted(self, action: Array, params: WrappedParams) -> Array:
        low, high = self.inside.action_bounds(params.inner)
        middle, reach = 0.5 * (high + low), 0.5 * (high - low)
        return jnp.clip(middle + reach * (params.own @ action), low, high)
