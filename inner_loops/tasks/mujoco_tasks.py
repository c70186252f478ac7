"""Simulated bodies as task distributions: lifetimes differ by their seeds only (extra ``mujoco``)."""

from __future__ import annotations

from inner_loops.environments.mujoco.cart_pole import MujocoCartPole, SwingUpParams
from inner_loops.tasks.control_tasks import ControlTasks
from metalab.components import component

__all__ = ["MujocoCartPoleTasks"]


@component
class MujocoCartPoleTasks(ControlTasks):
    """A simulated cart that swings its pole up, paid up to 1 a step."""

    @property
    def environment(self) -> MujocoCartPole:
        """The cart."""
        return MujocoCartPole()

    def _params(self) -> SwingUpParams:
        return SwingUpParams(self._steps)
