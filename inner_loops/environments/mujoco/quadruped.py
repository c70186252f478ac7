"""A trunk on four legs that is to walk; an action is the angle that each of its twelve joints is driven to.

The constraint of Calian et al. (2021, arXiv:2010.06324) on this body is on ``observation.0:12``, the largest
angle of a joint: below ``60 s`` degrees with a coefficient ``s`` from 0 to 1.

Deviations: model and reward are our own (``walking``).
"""

from __future__ import annotations

from typing import ClassVar

from inner_loops.environments.mujoco.walking import WalkingBody
from metalab.components import component

__all__ = ["MujocoQuadruped"]


@component
class MujocoQuadruped(WalkingBody):
    """A simulated quadruped, paid up to 1 a step."""

    model: ClassVar[str] = "quadruped"
    lowest: ClassVar[float] = 0.2
    standing: ClassVar[float] = 0.4
