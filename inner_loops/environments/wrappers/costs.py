"""Costs beside the reward, as constrained problems have them: ``info["cost"]``, a vector of ``C`` entries.

A cost is the excess of a measure over its threshold, or 1 for any excess. What can be measured of a step:

* ``observation.I``: the size of the I-th entry of the observation that it leads to (before any reset);
* ``observation.I:J``: the largest size among its entries from the I-th to the one before the J-th;
* ``action``: the length of a continuous action;
* ``action.I``: the size of the I-th entry of a continuous action; 1 for the I-th discrete one, else 0;
* ``reward``: the reward, its sign turned.

A world may also say what the mean cost of a step is allowed to be (``limits``), for learners that heed it.

Costs of wrapped costs come first. What is measured is what this wrapper sees: around a permutation, the
permuted entries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, number, static

__all__ = ["CostParams", "Costs"]


class CostParams(NamedTuple):
    """What worlds with the same measures differ in.

    Attributes:
        thresholds: [M] float32, above which a measure costs.
        limits: [M] float32, what the mean cost of a step may be.
    """

    thresholds: Array
    limits: Array


@component
class Costs(Wrapper):
    """Costs of observations, actions or rewards beyond thresholds, in ``info["cost"]``.

    ``own``: ``CostParams``.
    """

    measures: tuple[str, ...] = static(
        ("action",),
        doc="what costs: observation.I or .I:J, action, action.I or reward, see the module",
    )
    thresholds: tuple[float, ...] = number((0.0,), doc="above which it does, one for each measure")
    limits: tuple[float, ...] = number(
        (), doc="of the mean cost of a step, one for each measure; none: 0", at_least=0.0
    )
    indicator: bool = static(False, doc="a cost is 1, not the excess over the threshold")

    def __post_init__(self) -> None:
        for measure in self.measures:
            _parsed(measure)
        for name, given in (("thresholds", self.thresholds), ("limits", self.limits or self.thresholds)):
            if isinstance(given, tuple) and len(given) != len(self.measures):
                raise ValueError(
                    f"{name}: {len(given)} given for {len(self.measures)} measures "
                    f"({', '.join(self.measures)}); give one for each"
                )

    @property
    def num_costs(self) -> int:
        """C: those inside, then one for each measure."""
        return super().num_costs + len(self.measures)

    def draw(self, key: Array) -> CostParams:
        """The same thresholds and limits in every world."""
        del key
        limits = self.limits or (0.0,) * len(self.measures)
        return CostParams(jnp.asarray(self.thresholds, jnp.float32), jnp.asarray(limits, jnp.float32))

    def cost_limits(self, params: WrappedParams) -> Array:
        """[C]: those inside, then these."""
        return jnp.concatenate([super().cost_limits(params), params.own.limits])

    def step_env(
        self, noise: Any, state: Any, action: Array, params: WrappedParams
    ) -> tuple[Array, Any, Array, Array, Array, Info]:
        """The step inside, with its costs."""
        obs, state, reward, terminated, truncated, info = super().step_env(noise, state, action, params)
        measured = jnp.stack([self._measured(measure, obs, action, reward) for measure in self.measures])
        excess = measured - params.own.thresholds
        cost = (excess > 0.0).astype(jnp.float32) if self.indicator else jnp.maximum(excess, 0.0)
        inside = info.get("cost", jnp.zeros((0,), jnp.float32))
        info = {**info, "cost": jnp.concatenate([inside, cost])}
        return obs, state, reward, terminated, truncated, info

    def _measured(self, measure: str, obs: Array, action: Array, reward: Array) -> Array:
        """[] float32.

        Raises:
            ValueError: the world has no such entry or action.
        """
        what, entries = _parsed(measure)
        if what == "reward":
            return -jnp.asarray(reward, jnp.float32)
        if what == "observation" and entries is not None:
            return _largest(measure, obs.reshape(-1), entries, self.num_states is None)
        if entries is None:
            _largest(measure, jnp.reshape(action, -1), (0, 1), self.action_size is not None)
            return jnp.sqrt(jnp.sum(jnp.square(action)))
        if self.action_size is None:
            if entries[0] >= self.num_actions:
                raise ValueError(f"costs: {measure}: there are {self.num_actions} actions, from 0")
            return (action == entries[0]).astype(jnp.float32)
        return _largest(measure, action, entries, True)


def _parsed(measure: str) -> tuple[str, tuple[int, int] | None]:
    """What is measured, and from which entry to before which, ``("observation", (2, 5))``; None: whole."""
    what, dot, named = measure.partition(".")
    if what in ("action", "reward") and not dot:
        return what, None
    start, colon, stop = named.partition(":")
    whole = start.isdecimal() and (stop.isdecimal() if colon else True)
    if whole and what in (("observation",) if colon else ("observation", "action")):
        entries = int(start), int(stop) if colon else int(start) + 1
        if entries[0] < entries[1]:
            return what, entries
    raise ValueError(
        f"measures: {measure!r} is none of observation.I, observation.I:J, action, action.I, reward "
        "(I < J whole numbers from 0)"
    )


def _largest(measure: str, vector: Array, entries: tuple[int, int], is_vector: bool) -> Array:
    """[] float32, the largest size among some entries of a vector."""
    if not is_vector:
        raise ValueError(f"costs: {measure}: it is no vector in this world, but one of a number of indices")
    start, stop = entries
    if stop > vector.shape[0]:
        raise ValueError(f"costs: {measure}: there are {vector.shape[0]} entries, from 0")
    return jnp.max(jnp.abs(vector[start:stop])).astype(jnp.float32)
