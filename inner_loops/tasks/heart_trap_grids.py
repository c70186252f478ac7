"""Grids of a heart and a trap, with the signs as they are, swapped, or drawn for each lifetime.

Kirsch et al. 2022 (arXiv:2109.10781) train where hearts pay and test where they cost: see
``inner_loops.environments.hearts_and_traps``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.hearts_and_traps import HeartsAndTraps, HeartsAndTrapsParams
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["HeartTrapGrids"]


@component
class HeartTrapGrids:
    """Grids of a heart and a trap (Kirsch et al. 2022); lifetimes differ in chance, and in sign if asked."""

    size: int = static(5, doc="rows and columns", at_least=2)
    observation: str = static("planes", doc="what is seen", choices=("planes", "offsets", "directions"))
    hearts_pay: float = number(1.0, doc="what a heart pays and a trap costs; -1: signs are swapped")
    swapped: float = number(
        0.0, doc="probability that a lifetime's signs are swapped", at_least=0.0, at_most=1.0
    )
    max_steps: int = number(50, doc="time limit of an episode", at_least=1)
    lifetime: int = number(default=20, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    @property
    def environment(self) -> HeartsAndTraps:
        """The grid."""
        return HeartsAndTraps(size=self.size, observation=self.observation)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    def sample(self, key: Array) -> Task:
        """Draws the sign."""
        swap_key, lifetime_key = jax.random.split(key)
        sign = jnp.where(jax.random.uniform(swap_key) < self.swapped, -1.0, 1.0)
        params = HeartsAndTrapsParams(
            hearts_pay=jnp.asarray(sign * self.hearts_pay, jnp.float32),
            max_steps=jnp.asarray(self.max_steps, jnp.int32),
        )
        return agent_task(params, sample_lifetime(lifetime_key, self.lifetime, self.shortest_lifetime))

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` draws."""
        return jax.vmap(self.sample)(jax.random.split(key, count))
