"""Bandit algorithms as agents: their memory is every arm's pulls and payouts; parameters they have none.

They do not read observations, so that they are at home where every step is the same choice. Thompson sampling
(Thompson 1933; Agrawal and Goyal 2012, arXiv:1111.1797) with a Beta(1, 1) prior for each arm; UCB1 (Auer,
Cesa-Bianchi and Fischer 2002); a uniform choice, which no agent that learns should lose to.

Agents answer with logits: those of arms that are not chosen are minus infinity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from metalab.components import component, number
from metalab.protocols import PyTree

__all__ = ["UCB1", "Payouts", "ThompsonSampling", "Uniform"]


class Payouts(NamedTuple):
    """What an agent has seen of A arms.

    Attributes:
        key: data of the PRNG key of the choices to come.
        pulls: [A] float32.
        paid: [A] float32, sum of the rewards.
    """

    key: Array
    pulls: Array
    paid: Array


class _Handmade:
    """No parameters."""

    def init_params(self, key: Array, sizes: Sizes) -> tuple[()]:
        """None."""
        del key, sizes
        return ()


class _Counting(_Handmade):
    """Remembers what every arm was pulled and has paid."""

    def init_memory(self, key: Array, params: PyTree, sizes: Sizes) -> Payouts:
        """Nothing seen."""
        del params
        zeros = jnp.zeros(sizes.actions)
        return Payouts(jax.random.key_data(key), zeros, zeros)


@component
class ThompsonSampling(_Counting):
    """Thompson sampling for rewards in [0, 1], Beta(1, 1) priors (Agrawal and Goyal 2012)."""

    def step(self, params: PyTree, memory: Payouts, percept: Percept) -> tuple[Payouts, Array]:
        """The arm whose payout is the highest in a draw from the posterior."""
        del params
        memory = _counted(memory, percept)
        key, draw_key = jax.random.split(jax.random.wrap_key_data(memory.key))
        drawn = jax.random.beta(draw_key, 1.0 + memory.paid, 1.0 + memory.pulls - memory.paid)
        return memory._replace(key=jax.random.key_data(key)), _best(drawn, percept.action_mask)


@component
class UCB1(_Counting):
    """Upper confidence bounds for rewards in [0, 1] (UCB1; Auer et al. 2002)."""

    exploration: float = number(2.0, doc="c in the bonus sqrt(c log t / pulls); 2 in the paper", at_least=0.0)

    def step(self, params: PyTree, memory: Payouts, percept: Percept) -> tuple[Payouts, Array]:
        """The arm with the highest bound, at random among equals; an arm never pulled comes first."""
        del params
        memory = _counted(memory, percept)
        pulls = jnp.maximum(memory.pulls, 1.0)
        bonus = jnp.sqrt(self.exploration * jnp.log(jnp.maximum(jnp.sum(memory.pulls), 1.0)) / pulls)
        bound = jnp.where(memory.pulls > 0, memory.paid / pulls + bonus, jnp.inf)
        return memory, _best(bound, percept.action_mask)


@component
class Uniform(_Handmade):
    """Every action alike, whatever has come of it."""

    def init_memory(self, key: Array, params: PyTree, sizes: Sizes) -> tuple[()]:
        """None."""
        del key, params, sizes
        return ()

    def step(self, params: PyTree, memory: tuple[()], percept: Percept) -> tuple[tuple[()], Array]:
        """Equal logits."""
        del params
        return memory, jnp.zeros_like(percept.action)


def _counted(memory: Payouts, percept: Percept) -> Payouts:
    """With the last pull, its reward clipped to [0, 1]; at birth there is none: the action is zero."""
    paid = memory.paid + jnp.clip(percept.reward, 0.0, 1.0) * percept.action
    return memory._replace(pulls=memory.pulls + percept.action, paid=paid)


def _best(values: Array, mask: Array) -> Array:
    """[A] logits of a uniform choice among the allowed actions of the highest value."""
    allowed = jnp.where(mask, values, -jnp.inf)
    return jnp.where(allowed == jnp.max(allowed), 0.0, -jnp.inf)
