"""A cart that is to carry its pole, upright, to a place: the motion of CartPole-v1, paid from 0 to 1.

The reward of a step is ``(1 + cos theta) / 2 * exp(-(x - goal)^2)`` of the state that it leads to. The track
ends at +-2.4, where the cart stops dead; a fallen pole ends nothing. Observed are place and speed of the
cart, cosine and sine of the pole's angle, and its speed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.control.base import ControlEnvironment
from metalab.components import component, static

__all__ = ["CartPoleGoal", "CartPoleParams"]

# Barto, Sutton and Anderson (1983), as in CartPole-v1: metres, kilograms, seconds.
_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _STEP_S, _TRACK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02, 2.4


class CartPoleParams(NamedTuple):
    """One cart.

    Attributes:
        start: [] float32, where episodes begin, within +-0.1.
        goal: [] float32, where the cart is to be.
        max_steps: [] int32, of an episode.
    """

    start: Array
    goal: Array
    max_steps: Array


@component
class CartPoleGoal(ControlEnvironment):
    """A cart that carries its pole to a place, paid up to 1 a step; continuous or discrete pushes."""

    discrete: bool = static(False, doc="push with all force to the left or to the right")

    @property
    def num_actions(self) -> int:
        """2.

        Raises:
            ValueError: its actions are continuous.
        """
        if not self.discrete:
            raise ValueError("cart_pole_goal: its actions are continuous unless `discrete` is set")
        return 2

    @property
    def action_size(self) -> int | None:
        """1, the push; None where actions are discrete."""
        return None if self.discrete else 1

    def action_bounds(self, params: CartPoleParams) -> tuple[Array, Array]:
        """-1 and 1, of the largest push."""
        return super().action_bounds(params) if self.discrete else (-jnp.ones(1), jnp.ones(1))

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """See the module."""
        return (5,)

    def _begin(self, key: Array, params: CartPoleParams) -> Array:
        near_zero = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
        return near_zero.at[0].add(params.start)

    def _move(self, physics: Array, action: Array, params: CartPoleParams) -> tuple[Array, Array]:
        x, speed, theta, omega = physics
        push = 2.0 * action - 1.0 if self.discrete else jnp.clip(action[0], -1.0, 1.0)
        cos, sin, mass = jnp.cos(theta), jnp.sin(theta), _CART + _POLE
        thrust = (_FORCE * push + _POLE * _HALF_LENGTH * jnp.square(omega) * sin) / mass
        inertia = _HALF_LENGTH * (4.0 / 3.0 - _POLE * jnp.square(cos) / mass)
        turn = (_GRAVITY * sin - cos * thrust) / inertia
        pull = thrust - _POLE * _HALF_LENGTH * turn * cos / mass
        moved = x + _STEP_S * speed
        speed = jnp.where(jnp.abs(moved) > _TRACK, 0.0, speed + _STEP_S * pull)
        x = jnp.clip(moved, -_TRACK, _TRACK)
        theta = theta + _STEP_S * omega
        reward = 0.5 * (1.0 + jnp.cos(theta)) * jnp.exp(-jnp.square(x - params.goal))
        return jnp.stack([x, speed, theta, omega + _STEP_S * turn]), reward

    def _observe(self, physics: Array) -> Array:
        x, speed, theta, omega = physics
        return jnp.stack([x, speed, jnp.cos(theta), jnp.sin(theta), omega])
