"""Exact returns of tabular grid worlds, by dynamic programming over a finite horizon.

A state is a cell and the set of objects that are there: ``[C, 2**M]`` values for C cells and M objects, bit
i of the second index standing for object i. Objects stand on distinct cells, so one step collects at most
one of them; the others that are absent reappear independently of each other, so the expectation over
reappearances is M small averages along the bits instead of a product over all pairs of sets. One backup
costs O(A C 2**M).

Nothing here is for training: a learner must not see it. It is not reverse-differentiable (the horizon is
data, so the loop is a ``while``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["GridModel", "action_values", "optimal_value", "policy_value"]


class GridModel(NamedTuple):
    """The transition law of a grid world. C cells, M objects, A actions.

    Attributes:
        next_cell: [A, C] int32, where an action leads.
        reached: [A, C] int32, the object that an action collects if it is there; M: none.
        allowed: [A] bool.
        reward: [M] float32.
        eps_term: [M] float32, probability that collecting it ends the episode.
        eps_respawn: [M] float32, probability per step that it reappears.
    """

    next_cell: Array
    reached: Array
    allowed: Array
    reward: Array
    eps_term: Array
    eps_respawn: Array


def action_values(model: GridModel, values: Array) -> Array:
    """One backup: the expected return of each action.

    Args:
        model: the world.
        values: [C, 2**M] expected return with one step less to go.

    Returns:
        [C, 2**M, A]; actions that are not allowed are -inf.
    """
    num_objects = model.reward.shape[0]
    # [M + 1, C, 2**M]: what follows when object i has just been collected; the last row: none was
    after = jnp.stack(
        [_collected(model, values, index) for index in range(num_objects)]
        + [_respawned(model, values, skip=None)]
    )
    sets = jnp.arange(values.shape[1])
    there = jnp.where(
        model.reached[..., None] < num_objects, (sets >> model.reached[..., None]) & 1, 0
    ).astype(bool)
    pad = jnp.zeros((1,), values.dtype)
    reward = jnp.concatenate([model.reward, pad])[model.reached][..., None]
    goes_on = jnp.concatenate([1.0 - model.eps_term, pad])[model.reached][..., None]
    collecting = reward + goes_on * after[model.reached, model.next_cell]
    returns = jnp.where(there, collecting, after[num_objects][model.next_cell])
    returns = jnp.where(model.allowed[:, None, None], returns, -jnp.inf)
    return jnp.moveaxis(returns, 0, -1)


def optimal_value(model: GridModel, horizon: Array) -> Array:
    """[C, 2**M] the best expected undiscounted return of ``horizon`` steps ([] int32)."""
    return _iterate(model, horizon, lambda returns: returns.max(axis=-1))


def policy_value(model: GridModel, horizon: Array, policy: Array, discount: Array | float = 1.0) -> Array:
    """[C, 2**M] the expected discounted return of ``horizon`` steps of ``policy`` ([C, 2**M, A])."""

    def follow(returns: Array) -> Array:
        # an action that is not allowed has -inf, and no probability: 0 * -inf would be NaN
        return jnp.sum(jnp.where(policy > 0, policy * returns, 0.0), -1)

    return _iterate(model, horizon, follow, discount)


def _iterate(
    model: GridModel, horizon: Array, choose: Callable[[Array], Array], discount: Array | float = 1.0
) -> Array:
    shape = (model.next_cell.shape[1], 2 ** model.reward.shape[0])
    start = jnp.zeros(shape, model.reward.dtype)
    # A backup is linear in what follows, so what follows can be discounted before it.
    return jax.lax.fori_loop(
        0, horizon, lambda _, values: choose(action_values(model, discount * values)), start
    )


def _respawned(model: GridModel, values: Array, skip: int | None) -> Array:
    """Expectation over the reappearance of every absent object but ``skip``."""
    num_cells, num_sets = values.shape
    for index in range(model.reward.shape[0]):
        if index == skip:
            continue
        absent, present = _split(values, index)
        chance = model.eps_respawn[index]
        values = _join(absent + chance * (present - absent), present).reshape(num_cells, num_sets)
    return values


def _collected(model: GridModel, values: Array, index: int) -> Array:
    """What follows the collection of ``index``: it is gone, and its own draw comes with the next step."""
    absent, _ = _split(_respawned(model, values, skip=index), index)
    return _join(absent, absent).reshape(values.shape)


def _split(values: Array, index: int) -> tuple[Array, Array]:
    """The two halves, ``[C, 2**(M - 1 - index), 2**index]``: object ``index`` absent and present."""
    halves = values.reshape(values.shape[0], -1, 2, 2**index)
    return halves[:, :, 0], halves[:, :, 1]


def _join(absent: Array, present: Array) -> Array:
    return jnp.stack([absent, present], axis=2)
