"""Transitions of several steps (Watkins 1989; Sutton 1988) from the record of one environment.

With ``n`` steps a transition from time t holds ``r_t + gamma r_{t+1} + ... + gamma^{k-1} r_{t+k-1}`` and the
observation reached after its k steps, where k is n, or less where the episode ends first. Its value there is
weighted with ``gamma^k``: also where the time limit struck, but not where the episode ended by its own
rules.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Step", "Transition", "n_step_transitions"]


class Step(NamedTuple):
    """What one environment did in one step, or in several (leaves with a leading axis).

    Attributes:
        obs: what the agent saw.
        action: what it did.
        reward: [] what it was paid.
        terminated, truncated: [] bool, how the episode ended, if it did.
        next_obs: the observation reached, before any reset.
        cost: [C] what it cost; () in a world without costs.
    """

    obs: Array
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: Array
    cost: Any = ()


class Transition(NamedTuple):
    """What an agent with a replay learns from.

    Attributes:
        obs, action: where it was and what it did.
        reward: [] discounted sum of the steps' rewards.
        discount: [] weight of the value of ``next_obs``.
        next_obs: the observation after the steps.
        cost: [C] discounted sums of the steps' costs, apart from the reward; () in a world without costs.
    """

    obs: Array
    action: Array
    reward: Array
    discount: Array
    next_obs: Array
    cost: Any = ()


def n_step_transitions(steps: Step, discount: Array | float, n: int) -> Transition:
    """Every transition whose ``n`` steps are on record.

    Args:
        steps: leaves ``[T + n - 1, ...]``, consecutive steps of one environment.
        discount: [] gamma.
        n: steps of a transition, at least 1.

    Returns:
        Leaves ``[T, ...]``, one transition for each of the first T steps.
    """
    chex.assert_rank([steps.reward, steps.terminated, steps.truncated], 1)
    starts = jnp.arange(steps.reward.shape[0] - n + 1)
    ended = steps.terminated | steps.truncated
    goes_on = jnp.ones(starts.shape, bool)
    weight = jnp.ones(starts.shape, steps.reward.dtype)
    paid = (steps.reward, steps.cost)
    total, last = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[: starts.shape[0]]), paid), starts
    for later in range(n):
        at = slice(later, later + starts.shape[0])
        total = jax.tree.map(partial(_added, goes_on, weight), total, jax.tree.map(itemgetter(at), paid))
        weight = jnp.where(goes_on, weight * discount, weight)
        last = jnp.where(goes_on, starts + later, last)
        goes_on = goes_on & ~ended[at]
    return Transition(
        obs=steps.obs[: starts.shape[0]],
        action=steps.action[: starts.shape[0]],
        reward=total[0],
        discount=jnp.where(steps.terminated[last], 0.0, weight),
        next_obs=jax.tree.map(lambda leaf: leaf[last], steps.next_obs),
        cost=total[1],
    )


def _added(goes_on: Array, weight: Array, total: Array, paid: Array) -> Array:
    """Totals [T, ...] with what was paid [T, ...] in one step more, where the transition goes on [T]."""
    wide = (-1,) + (1,) * (paid.ndim - 1)
    return total + jnp.where(goes_on.reshape(wide), weight.reshape(wide) * paid, 0.0)
