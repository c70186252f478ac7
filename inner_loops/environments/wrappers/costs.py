"""Costs beside the reward, as constrained problems have them: ``info["cost"]``, a vector of ``C`` entries.

A cost is the excess of a measure over its threshold, or 1 for any excess. What can be measured of a step:

* ``observation.I``: the size of the I-th entry of the observation that it leads to (before any reset);
* ``action``: the length of a continuous action;
* ``action.I``: the size of the I-th entry of a continuous action; 1 for the I-th discrete one, else 0;
* ``reward``: the reward, its sign turned.

Costs of wrapped costs come first. What is measured is what this wrapper sees: around a permutation, the
permuted entries.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, number, static

__all__ = ["Costs"]


@component
class Costs(Wrapper):
    """Costs of observations, actions or rewards beyond thresholds, in ``info["cost"]``.

    ``own``: [number of measures] float32, the thresholds.
    """

    measures: tuple[str, ...] = static(
        ("action",), doc="what costs: observation.I, action, action.I or reward, see the module"
    )
    thresholds: tuple[float, ...] = number((0.0,), doc="above which it does, one for each measure")
    indicator: bool = static(False, doc="a cost is 1, not the excess over the threshold")

    def __post_init__(self) -> None:
        for measure in self.measures:
            _parsed(measure)
        if isinstance(self.thresholds, tuple) and len(self.thresholds) != len(self.measures):
            raise ValueError(
                f"thresholds: {len(self.thresholds)} given for {len(self.measures)} measures "
                f"({', '.join(self.measures)}); give one for each"
            )

    @property
    def num_costs(self) -> int:
        """C: those inside, then one for each measure."""
        return super().num_costs + len(self.measures)

    def draw(self, key: Array) -> Array:
        """The same thresholds in every world."""
        del key
        return jnp.asarray(self.thresholds, jnp.float32)

    def step_env(
        self, noise: Any, state: Any, action: Array, params: WrappedParams
    ) -> tuple[Array, Any, Array, Array, Array, Info]:
        """The step inside, with its costs."""
        obs, state, reward, terminated, truncated, info = super().step_env(noise, state, action, params)
        measured = jnp.stack([self._measured(measure, obs, action, reward) for measure in self.measures])
        excess = measured - params.own
        cost = (excess > 0.0).astype(jnp.float32) if self.indicator else jnp.maximum(excess, 0.0)
        inside = info.get("cost", jnp.zeros((0,), jnp.float32))
        info = {**info, "cost": jnp.concatenate([inside, cost])}
        return obs, state, reward, terminated, truncated, info

    def _measured(self, measure: str, obs: Array, action: Array, reward: Array) -> Array:
        """[] float32.

        Raises:
            ValueError: the world has no such entry or action.
        """
        what, entry = _parsed(measure)
        if what == "reward":
            return -jnp.asarray(reward, jnp.float32)
        if what == "observation":
            return jnp.abs(_entry(measure, obs.reshape(-1), entry, self.num_states is None))
        if entry is None:
            _entry(measure, jnp.reshape(action, -1), 0, self.action_size is not None)
            return jnp.sqrt(jnp.sum(jnp.square(action)))
        if self.action_size is None:
            if entry >= self.num_actions:
                raise ValueError(f"costs: {measure}: there are {self.num_actions} actions, from 0")
            return (action == entry).astype(jnp.float32)
        return jnp.abs(_entry(measure, action, entry, True))


def _parsed(measure: str) -> tuple[str, int | None]:
    """``("observation", 2)`` of ``observation.2``."""
    what, dot, entry = measure.partition(".")
    plain = what in ("action", "reward") and not dot
    if plain or (what in ("action", "observation") and entry.isdecimal()):
        return what, int(entry) if entry else None
    raise ValueError(
        f"measures: {measure!r} is none of observation.I, action, action.I, reward (I a whole number from 0)"
    )


def _entry(measure: str, vector: Array, entry: int | None, is_vector: bool) -> Array:
    """[] float32, an entry of a vector."""
    if not is_vector:
        raise ValueError(f"costs: {measure}: it is no vector in this world, but one of a number of indices")
    if entry is None or entry >= vector.shape[0]:
        raise ValueError(f"costs: {measure}: there are {vector.shape[0]} entries, from 0")
    return vector[entry].astype(jnp.float32)
