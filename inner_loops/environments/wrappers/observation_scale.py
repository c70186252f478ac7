"""Observations in units of their nominal ranges."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.wrappers.base import Wrapper
from metalab.components import component, number

__all__ = ["ObservationScale"]


@component
class ObservationScale(Wrapper):
    """Divides the entries of an observation by their nominal ranges.

    ``own``: the observation's shape, float32.
    """

    ranges: tuple[float, ...] = number(doc="one for each entry, or one for all", above=0.0)

    def draw(self, key: Array) -> Array:
        """The same ranges in every world.

        Raises:
            ValueError: their number is not that of the entries, or the observation is a state index.
        """
        del key
        shape = self.observation_shape
        entries = math.prod(shape)
        if self.num_states is not None:
            raise ValueError(f"observation_scale: the observations of {self.inside} are indices, not vectors")
        if len(self.ranges) not in (1, entries):
            raise ValueError(
                f"observation_scale: {len(self.ranges)} ranges given for an observation of {entries} entries"
            )
        return jnp.broadcast_to(jnp.asarray(self.ranges, jnp.float32), (entries,)).reshape(shape)

    def _observed(self, obs: Array, own: Array) -> Array:
        return obs / own
