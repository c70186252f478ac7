"""Observations and actions in another order: the same world, to whom its entries mean nothing.

The order is drawn for each world unless one is given, which then holds in all of them.

Learning algorithms that are themselves learned must not know their inputs by place (Kirsch et al. 2022,
arXiv:2109.10781, permute them from task to task).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from metalab.components import component, number

__all__ = ["ActionPermutation", "ObservationPermutation"]


@component
class ObservationPermutation(Wrapper):
    """The entries of an observation (or the state indices) in an order drawn for each world.

    ``own``: [n] int32, the entry inside that stands at each place; for state indices, the index that each
    state inside is shown as.
    """

    order: tuple[int, ...] = number((), doc="the order in every world; none: drawn for each", at_least=0)

    def __post_init__(self) -> None:
        _require_order(self.order, type(self).__name__)

    def draw(self, key: Array) -> Array:
        """The order that is given, or a random one."""
        states = self.num_states
        count = math.prod(self.observation_shape) if states is None else states
        return _order(key, count, self.order, type(self).__name__)

    def _observed(self, obs: Array, own: Array) -> Array:
        return own[obs] if self.num_states is not None else obs.reshape(-1)[own].reshape(obs.shape)

    def _policy_inside(self, policy: Array, own: Array) -> Array:
        return policy[own]

    def _values_outside(self, values: Array, own: Array) -> Array:
        return values[jnp.argsort(own)]


@component
class ActionPermutation(Wrapper):
    """Actions (or the entries of a continuous one) in an order drawn for each world.

    ``own``: [n] int32, the action inside that each of the agent's is; of a continuous action, the agent's
    entry that is taken for each entry inside.
    """

    order: tuple[int, ...] = number((), doc="the order in every world; none: drawn for each", at_least=0)

    def __post_init__(self) -> None:
        _require_order(self.order, type(self).__name__)

    def draw(self, key: Array) -> Array:
        """The order that is given, or a random one."""
        count = self.num_actions if self.action_size is None else self.action_size
        return _order(key, count, self.order, type(self).__name__)

    def action_mask(self, params: WrappedParams) -> Array:
        """[A] bool: an action is allowed where the one that it stands for is."""
        return self.inside.action_mask(params.inner)[params.own]

    def action_bounds(self, params: WrappedParams) -> tuple[Array, Array]:
        """The bounds of each entry are those of the one that it is taken for."""
        low, high = self.inside.action_bounds(params.inner)
        place = jnp.argsort(params.own)
        return low[place], high[place]

    def _acted(self, action: Array, params: WrappedParams) -> Array:
        return params.own[action] if self.action_size is None else action[params.own]

    def _policy_inside(self, policy: Array, own: Array) -> Array:
        return policy[:, jnp.argsort(own)]


def _order(key: Array, count: int, given: tuple[int, ...], name: str) -> Array:
    """[count] int32.

    Raises:
        ValueError: the order that is given has another length.
    """
    if not given:
        return jax.random.permutation(key, jnp.arange(count, dtype=jnp.int32))
    if len(given) != count:
        raise ValueError(f"{name}: order has {len(given)} entries, and there are {count} to put in order")
    return jnp.asarray(given, jnp.int32)


def _require_order(given: Any, name: str) -> None:
    """Refuses what is no order; while jax rebuilds a component from its leaves, fields may be anything."""
    whole = isinstance(given, tuple) and all(type(place) is int for place in given)
    if whole and sorted(given) != list(range(len(given))):
        raise ValueError(
            f"{name}: order={given} must hold every whole number from 0 to {len(given) - 1} once"
        )
