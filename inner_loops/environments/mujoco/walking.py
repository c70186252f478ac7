"""What the walking bodies share: paid a fifth for standing upright, and the rest for going forward too.

The reward of a step is, of the state that it leads to,

    rise(height, lowest, standing) * (1 + upright) / 2 * (1 + 4 rise(forward, 0, speed)) / 5

with ``rise(v, a, b)`` 0 up to a, 1 from b on and straight between. Observed are the angles of the joints
(radians), then their speeds (radians a second), then what is seen of the trunk (``trunk``).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.mujoco.base import MujocoEnvironment
from inner_loops.environments.mujoco.trunk import Trunk, free_trunk
from metalab.components import component

__all__ = ["WalkParams", "WalkingBody"]


class WalkParams(NamedTuple):
    """One walk.

    Attributes:
        speed: [] float32, metres a second along x, from which on all is paid.
        max_steps: [] int32, of an episode.
    """

    speed: Array
    max_steps: Array


@component
class WalkingBody(MujocoEnvironment):
    """A body that is to walk; one that moves in space unless it says otherwise."""

    substeps: ClassVar[int] = 5
    roots: ClassVar[int] = 7
    # Heights of the trunk's origin in metres: up to the first nothing is paid, from the second on all.
    lowest: ClassVar[float]
    standing: ClassVar[float]

    def _trunk(self, physics: Array) -> Trunk:
        return free_trunk(*self._split(physics))

    def _observe(self, physics: Array) -> Array:
        qpos, qvel = self._split(physics)
        angles = qpos[self.roots :]
        return jnp.concatenate([angles, qvel[-angles.shape[0] :], self._trunk(physics).seen])

    def _pay(self, physics: Array, params: WalkParams) -> Array:
        trunk = self._trunk(physics)
        upright = jnp.clip(0.5 * (1.0 + trunk.upright), 0.0, 1.0)
        stands = upright * _rise(trunk.height, self.lowest, self.standing)
        return stands * (1.0 + 4.0 * _rise(trunk.forward, 0.0, params.speed)) / 5.0


def _rise(value: Array, low: float, high: Array | float) -> Array:
    """[] 0 up to ``low``, 1 from ``high`` on, straight between."""
    return jnp.clip((value - low) / (high - low), 0.0, 1.0)
