"""A body with arms and legs, of 21 joints, that is to walk.

The constraint of Calian et al. (2021, arXiv:2010.06324) on this body is on ``observation.0:21``, the largest
angle of a joint: below ``pi s`` radians with a coefficient ``s`` from 0 to 1.

Deviations: model and reward are our own (``walking``).
"""

from __future__ import annotations

from typing import ClassVar

from inner_loops.environments.mujoco.walking import WalkingBody
from metalab.components import component

__all__ = ["MujocoHumanoid"]


@component
class MujocoHumanoid(WalkingBody):
    """A simulated humanoid, paid up to 1 a step."""

    model: ClassVar[str] = "humanoid"
    lowest: ClassVar[float] = 0.4
    standing: ClassVar[float] = 0.85
