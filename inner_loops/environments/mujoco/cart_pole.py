"""A cart whose pole hangs and is to be swung up and held upright at the middle of the rail.

The reward of a step is ``(1 + cos theta) / 2 * (1 + exp(-x^2)) / 2 * (1 + exp(-(omega / 5)^2)) / 2`` of the
state that it leads to. Observed are place (metres) of the cart, cosine and sine of the pole's angle from
upright, and the two speeds. The constraint of Calian et al. (2021, arXiv:2010.06324) on this body is on
``observation.0``, the place: ``|x| < 2 s`` metres with a coefficient ``s`` from 0 to 1.

Deviations: the model is our own; the swing-up of the real-world RL suite (Dulac-Arnold et al. 2020,
arXiv:2003.11881) is paid by other factors of the same quantities, and holds an action for 0.01 s, not 0.02 s.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.mujoco.base import MujocoEnvironment
from metalab.components import component

__all__ = ["MujocoCartPole", "SwingUpParams"]


class SwingUpParams(NamedTuple):
    """One cart.

    Attributes:
        max_steps: [] int32, of an episode.
    """

    max_steps: Array


@component
class MujocoCartPole(MujocoEnvironment):
    """A simulated cart that swings its pole up, paid up to 1 a step."""

    model: ClassVar[str] = "cart_pole"
    substeps: ClassVar[int] = 2

    def _begin(self, key: Array, params: SwingUpParams) -> Array:
        return super()._begin(key, params).at[1].add(jnp.pi)

    def _observe(self, physics: Array) -> Array:
        x, theta, speed, omega = physics
        return jnp.stack([x, jnp.cos(theta), jnp.sin(theta), speed, omega])

    def _pay(self, physics: Array, params: SwingUpParams) -> Array:
        del params
        x, theta, _, omega = physics
        middle, still = (0.5 * (1.0 + jnp.exp(-jnp.square(size))) for size in (x, omega / 5.0))
        return 0.5 * (1.0 + jnp.cos(theta)) * middle * still
