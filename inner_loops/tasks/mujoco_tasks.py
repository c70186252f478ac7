"""Simulated bodies as task distributions: lifetimes differ by their seeds only (extra ``mujoco``)."""

from __future__ import annotations

import jax.numpy as jnp

from inner_loops.environments.mujoco.cart_pole import MujocoCartPole, SwingUpParams
from inner_loops.environments.mujoco.humanoid import MujocoHumanoid
from inner_loops.environments.mujoco.quadruped import MujocoQuadruped
from inner_loops.environments.mujoco.walker import MujocoWalker
from inner_loops.environments.mujoco.walking import WalkParams
from inner_loops.tasks.control_tasks import ControlTasks
from metalab.components import component, number

__all__ = ["MujocoCartPoleTasks", "MujocoHumanoidTasks", "MujocoQuadrupedTasks", "MujocoWalkerTasks"]


@component
class MujocoCartPoleTasks(ControlTasks):
    """A simulated cart that swings its pole up, paid up to 1 a step."""

    @property
    def environment(self) -> MujocoCartPole:
        """The cart."""
        return MujocoCartPole()

    def _params(self) -> SwingUpParams:
        return SwingUpParams(self._steps)


@component
class WalkTasks(ControlTasks):
    """What the walks share."""

    speed: float = number(1.0, doc="metres a second from which on all is paid", above=0.0)

    def _params(self) -> WalkParams:
        return WalkParams(jnp.asarray(self.speed, jnp.float32), self._steps)


@component
class MujocoWalkerTasks(WalkTasks):
    """A simulated walker in the plane, paid up to 1 a step."""

    @property
    def environment(self) -> MujocoWalker:
        """The walker."""
        return MujocoWalker()


@component
class MujocoQuadrupedTasks(WalkTasks):
    """A simulated quadruped, paid up to 1 a step."""

    speed: float = number(0.5, doc="metres a second from which on all is paid", above=0.0)

    @property
    def environment(self) -> MujocoQuadruped:
        """The quadruped."""
        return MujocoQuadruped()


@component
class MujocoHumanoidTasks(WalkTasks):
    """A simulated humanoid, paid up to 1 a step."""

    @property
    def environment(self) -> MujocoHumanoid:
        """The humanoid."""
        return MujocoHumanoid()
