"""Two legs in the vertical plane that are to walk.

The constraint of Calian et al. (2021, arXiv:2010.06324) on this body is on ``observation.6:12``, the largest
speed of the six joints: below ``65 s`` radians a second with a coefficient ``s`` from 0 to 1.

Deviations: model and reward are our own (``walking``); the real-world RL suite takes the largest speed with
its sign, here sizes count.
"""

from __future__ import annotations

from typing import ClassVar

from jax import Array

from inner_loops.environments.mujoco.trunk import Trunk, planar_trunk
from inner_loops.environments.mujoco.walking import WalkingBody
from metalab.components import component

__all__ = ["MujocoWalker"]


@component
class MujocoWalker(WalkingBody):
    """A simulated walker in the plane, paid up to 1 a step."""

    model: ClassVar[str] = "walker"
    roots: ClassVar[int] = 3
    lowest: ClassVar[float] = 0.5
    standing: ClassVar[float] = 0.95

    def _trunk(self, physics: Array) -> Trunk:
        return planar_trunk(*self._split(physics))
