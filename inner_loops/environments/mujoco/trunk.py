"""What a walking body's trunk does, read from the leading positions and speeds of its model."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

__all__ = ["Trunk", "free_trunk", "planar_trunk"]


class Trunk(NamedTuple):
    """How a trunk is held and moves.

    Attributes:
        height: [] metres above the floor.
        upright: [] cosine of the angle between the trunk's axis and the vertical.
        forward: [] metres a second along x.
        seen: [S] all that an agent sees of it; not where it is on the floor.
    """

    height: Array
    upright: Array
    forward: Array
    seen: Array


def planar_trunk(qpos: Array, qvel: Array) -> Trunk:
    """Of a body in the plane y = 0 whose first joints are x, z (the height itself) and pitch.

    Seen are height, cosine and sine of the pitch, and the three speeds: S = 6.
    """
    height, pitch = qpos[1], qpos[2]
    held = jnp.stack([height, jnp.cos(pitch), jnp.sin(pitch)])
    return Trunk(height, held[1], qvel[0], jnp.concatenate([held, qvel[:3]]))


def free_trunk(qpos: Array, qvel: Array) -> Trunk:
    """Of a body whose first joint is free: place (3) and unit quaternion (4), speed (3) and turn (3).

    The cosine is the last entry of the quaternion's rotation matrix, ``1 - 2 (x^2 + y^2)``.
    Seen are height, quaternion, speed and turn: S = 11.
    """
    _, x, y, _ = qpos[3:7]
    upright = 1.0 - 2.0 * (jnp.square(x) + jnp.square(y))
    return Trunk(qpos[2], upright, qvel[0], jnp.concatenate([qpos[2:7], qvel[:6]]))
