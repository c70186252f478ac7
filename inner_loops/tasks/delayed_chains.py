"""Delayed chains whose length is drawn for each lifetime (Oh et al. 2020, arXiv 2007.08794, appendix A).

The paper's rows: ``short`` draws lengths 5 to 30, ``long`` 5 to 50; ``*_noisy`` has ``noise`` 1;
``distractor`` is ``short`` with the observation of that name.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.delayed_chain import DelayedChain, DelayedChainParams, information_floor
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["DelayedChains"]


@component
class DelayedChains:
    """Delayed chains, one length per lifetime (Oh et al. 2020)."""

    lengths: tuple[int, ...] = static(
        default=tuple(range(5, 31)), doc="lengths, one is drawn for each lifetime"
    )
    max_length: int = static(default=50, doc="longest chain that the state table has room for", at_least=1)
    observation: str = static(
        default="index", doc="state index, or 22 bits of which 20 are noise", choices=("index", "distractor")
    )
    noise: float = number(
        default=0.0, doc="size of the middle states' random reward; 1 in the paper", at_least=0.0
    )
    lifetime: int = number(default=40, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1 or max(self.lengths) > self.max_length:
            raise ValueError(
                f"delayed_chains: lengths={self.lengths} must be one or more whole numbers from 1 to "
                f"max_length={self.max_length}"
            )

    @property
    def environment(self) -> DelayedChain:
        """The chain that all lengths share."""
        return DelayedChain(max_length=self.max_length, observation=self.observation)

    @property
    def num_kinds(self) -> int:
        """1: all lengths are one type of environment, as in the paper."""
        return 1

    def sample(self, key: Array) -> Task:
        """Draws a chain, its length uniform over ``lengths``."""
        length_key, lifetime_key = jax.random.split(key)
        index = jax.random.randint(length_key, (), 0, len(self.lengths))
        return self._task(lifetime_key, index)

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` chains that cycle through ``lengths``."""
        indices = jnp.arange(count) % len(self.lengths)
        return jax.vmap(self._task)(jax.random.split(key, count), indices)

    def floor_steps(self, num_envs: int, rollout_length: int, count: int) -> list[float]:
        """``information_floor`` of each task of ``sample_set``: environment steps that no rule can beat."""
        lengths = [self.lengths[index % len(self.lengths)] for index in range(count)]
        return [float(information_floor(length, num_envs, rollout_length)) for length in lengths]

    def _task(self, key: Array, index: Array) -> Task:
        length = jnp.asarray(self.lengths, jnp.int32)[index]
        params = DelayedChainParams(length=length, noise=jnp.asarray(self.noise, jnp.float32))
        return agent_task(params, sample_lifetime(key, self.lifetime, self.shortest_lifetime))
