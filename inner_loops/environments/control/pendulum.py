"""A pendulum to be swung up and held: the motion of gymnax's Pendulum-v1, paid from 0 to 1.

The reward of a step is ``exp(-(theta^2 + 0.1 omega^2 + 0.001 u^2) / 4)`` of the state before it, with the
angle ``theta`` from upright in [-pi, pi): Pendulum's own reward, a quarter of it, in the exponent. Observed
are ``cos theta``, ``sin theta`` and ``omega``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.control.base import ControlEnvironment
from metalab.components import component

__all__ = ["PendulumParams", "PendulumSwingUp"]

_GRAVITY, _MASS, _LENGTH, _STEP_S, _MOST_SPEED = 10.0, 1.0, 1.0, 0.05, 8.0


class PendulumParams(NamedTuple):
    """One pendulum.

    Attributes:
        max_torque: [] float32, ends of the action.
        max_steps: [] int32, of an episode.
    """

    max_torque: Array
    max_steps: Array


@component
class PendulumSwingUp(ControlEnvironment):
    """A pendulum swung up by a torque, paid up to 1 a step."""

    @property
    def action_size(self) -> int | None:
        """1, the torque."""
        return 1

    def action_bounds(self, params: PendulumParams) -> tuple[Array, Array]:
        """Minus and plus the largest torque."""
        most = jnp.reshape(params.max_torque, (1,))
        return -most, most

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Cosine and sine of the angle, and the speed."""
        return (3,)

    def _begin(self, key: Array, params: PendulumParams) -> Array:
        del params
        most = jnp.asarray([jnp.pi, 1.0])
        return jax.random.uniform(key, (2,), minval=-most, maxval=most)

    def _move(self, physics: Array, action: Array, params: PendulumParams) -> tuple[Array, Array]:
        theta, omega = physics
        torque = jnp.clip(action[0], -params.max_torque, params.max_torque)
        from_upright = (theta + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
        cost = jnp.square(from_upright) + 0.1 * jnp.square(omega) + 0.001 * jnp.square(torque)
        push = 1.5 * _GRAVITY / _LENGTH * jnp.sin(theta) + 3.0 / (_MASS * _LENGTH**2) * torque
        omega = jnp.clip(omega + push * _STEP_S, -_MOST_SPEED, _MOST_SPEED)
        return jnp.stack([theta + omega * _STEP_S, omega]), jnp.exp(-0.25 * cost)

    def _observe(self, physics: Array) -> Array:
        theta, omega = physics
        return jnp.stack([jnp.cos(theta), jnp.sin(theta), omega])
