"""Bernoulli bandits whose payouts are drawn for each lifetime, with any number of arms.

Distributions of the payout probabilities p, after Wang et al. 2016 (arXiv:1611.05763):

* ``uniform``: p of every arm uniform on [0, 1], independent.
* ``dependent_uniform``: two arms, p = (d, 1 - d), d uniform on [0, 1].
* ``dependent_easy``, ``dependent_medium``, ``dependent_hard``: the same with d = 0.1 or 0.9, 0.25 or 0.75,
  0.4 or 0.6, with equal odds.
* ``biased``: arms of even number uniform on [0.5, 1], the others on [0, 0.5]. An agent can know by the
  place of an arm that it is good.
* ``flipped``: the other way round. Whoever has learned places in ``biased`` worlds is deceived here.
* ``mostly_odd``, ``mostly_even``: with probability 0.95 the arms of odd (even) number are uniform on [0.5, 1]
  and the others on [0, 0.5], else the other way round: what Laskin et al. 2022 (arXiv:2210.14215) train and
  test on. Arms are counted from 0.

With several numbers of arms one is drawn for each lifetime; the smaller bandits are padded and their missing
arms masked, so that all share one program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.bernoulli_bandit import BanditParams, BernoulliBandit
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["BernoulliBandits"]

_DEPENDENT = {"dependent_easy": 0.1, "dependent_medium": 0.25, "dependent_hard": 0.4}
_DISTRIBUTIONS = (
    "uniform",
    "dependent_uniform",
    *_DEPENDENT,
    "biased",
    "flipped",
    "mostly_odd",
    "mostly_even",
)
_USUAL = 0.95  # share of the bandits whose good arms are where the distribution's name says


@component
class BernoulliBandits:
    """Bernoulli bandits, payouts drawn for each lifetime (Wang et al. 2016)."""

    distribution: str = static("uniform", doc="of the payout probabilities", choices=_DISTRIBUTIONS)
    arms: tuple[int, ...] = static((2,), doc="numbers of arms, one is drawn for each lifetime")
    lifetime: int = number(default=10, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        if not self.arms or min(self.arms) < 1:
            raise ValueError(
                f"bernoulli_bandits: arms={self.arms} must be one or more whole numbers of at least 1"
            )
        if self.distribution.startswith("dependent") and set(self.arms) != {2}:
            raise ValueError(
                f"bernoulli_bandits: distribution={self.distribution!r} has two arms, got arms={self.arms}"
            )

    @property
    def environment(self) -> BernoulliBandit:
        """The largest bandit, which pads the others."""
        return BernoulliBandit(max_arms=max(self.arms))

    @property
    def num_kinds(self) -> int:
        """The numbers of arms."""
        return len(self.arms)

    def sample(self, key: Array) -> Task:
        """Draws a number of arms and their payouts."""
        arms_key, task_key = jax.random.split(key)
        return self._task(task_key, jax.random.randint(arms_key, (), 0, len(self.arms), jnp.int32))

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` bandits that cycle through ``arms``."""
        kinds = jnp.arange(count, dtype=jnp.int32) % len(self.arms)
        return jax.vmap(self._task)(jax.random.split(key, count), kinds)

    def _task(self, key: Array, kind: Array) -> Task:
        payout_key, lifetime_key = jax.random.split(key)
        present = jnp.arange(max(self.arms)) < jnp.asarray(self.arms, jnp.int32)[kind]
        probability = jnp.where(present, self._payouts(payout_key), 0.0)
        lifetime = sample_lifetime(lifetime_key, self.lifetime, self.shortest_lifetime)
        return agent_task(BanditParams(probability, present), lifetime, kind)

    def _payouts(self, key: Array) -> Array:
        """[max_arms] float32."""
        drawn = jax.random.uniform(key, (max(self.arms),), jnp.float32)
        if self.distribution == "uniform":
            return drawn
        if self.distribution in ("biased", "flipped"):
            good = jnp.arange(max(self.arms)) % 2 == (0 if self.distribution == "biased" else 1)
            return 0.5 * drawn + jnp.where(good, 0.5, 0.0)
        if self.distribution in ("mostly_odd", "mostly_even"):
            usual = jax.random.uniform(jax.random.fold_in(key, 1)) < _USUAL
            odd = usual == (self.distribution == "mostly_odd")
            good = (jnp.arange(max(self.arms)) % 2 == 1) == odd
            return 0.5 * drawn + jnp.where(good, 0.5, 0.0)
        first = drawn[0]
        if self.distribution in _DEPENDENT:
            low = _DEPENDENT[self.distribution]
            first = jnp.where(first < 0.5, low, 1.0 - low)
        return jnp.stack([first, 1.0 - first])
