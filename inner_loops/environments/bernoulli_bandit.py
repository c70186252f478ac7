"""Bernoulli bandits: every arm pays 1 with a probability of its own, and nothing is to be seen.

The observation is the constant 1: what an agent has pulled and been paid reaches it by other channels, and
the observation must not tell the arms apart (after Wang et al. 2016, arXiv:1611.05763, whose agents hear
their own actions and rewards). An episode is one pull; a lifetime is as many as it has steps.

The reward is a coin; the score is its probability, so that scores and regrets carry no noise of coins.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["BanditParams", "BernoulliBandit"]


class BanditParams(NamedTuple):
    """One bandit.

    Attributes:
        probability: [A] float32, of each arm's payout.
        present: [A] bool, the arms that this bandit has; the others are padding, and pay nothing.
    """

    probability: Array
    present: Array


@component
class BernoulliBandit(Environment[tuple[()], BanditParams]):
    """Bernoulli bandit with a constant observation; what it tallies is regret."""

    max_arms: int = static(2, doc="A, arms of the largest bandit", at_least=1)

    @property
    def num_actions(self) -> int:
        """A."""
        return self.max_arms

    @property
    def num_states(self) -> int | None:
        """None: the observation is a vector of one entry."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """(1,)."""
        return (1,)

    @property
    def tallies(self) -> tuple[str, ...]:
        """Regret: what the best arm pays more than the pulled one, in expectation."""
        return ("regret",)

    @property
    def optimum_known(self) -> bool:
        """True."""
        return True

    def optimal_return(self, params: BanditParams) -> Array:
        """[] the best arm's expected payout of one pull."""
        return jnp.max(jnp.where(params.present, params.probability, 0.0))

    def action_mask(self, params: BanditParams) -> Array:
        """[A] bool, the arms that there are."""
        return params.present

    def randomness(self, key: Array) -> tuple[Array, tuple[()]]:
        """One uniform number; a reset needs none."""
        return jax.random.uniform(key), ()

    def reset_env(self, noise: tuple[()], params: BanditParams) -> tuple[Array, tuple[()]]:
        """Nothing but the constant."""
        del noise, params
        return jnp.ones((1,), jnp.float32), ()

    def step_env(
        self, noise: Array, state: tuple[()], action: Array, params: BanditParams
    ) -> tuple[Array, tuple[()], Array, Array, Array, Info]:
        """One pull, which ends the episode."""
        chance = params.probability[action]
        reward = (noise < chance).astype(jnp.float32)
        info = {"score": chance, "tallies": {"regret": self.optimal_return(params) - chance}}
        return jnp.ones((1,), jnp.float32), state, reward, jnp.ones((), bool), jnp.zeros((), bool), info
