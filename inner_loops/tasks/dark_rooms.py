"""Dark rooms that differ in their goal; some goals are held out (Laskin et al. 2022, arXiv:2210.14215)."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from inner_loops.environments.dark_room import DarkRoom, DarkRoomParams
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from inner_loops.tasks.splits import PARTS, check_held_out, drawn, part_of, spread_evenly
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["DarkRooms"]


@component
class DarkRooms:
    """Dark rooms, one for each goal of a part of the split (Laskin et al. 2022)."""

    part: str = static("train", doc="which goals", choices=PARTS)
    held_out: int = static(16, doc="goals that are held out", at_least=1)
    split_seed: int = static(0, doc="of the split", at_least=0)
    size: int = static(9, doc="rows and columns", at_least=2)
    horizon: int = static(20, doc="time limit of an episode", at_least=1)
    pays: str = static(
        "always", doc="1 at every step that ends at the goal, or once an episode", choices=("always", "once")
    )
    ends_when_paid: bool = static(False, doc="an episode ends when the goal pays")
    start: str = static("centre", doc="where episodes begin", choices=("centre", "random"))
    observation: str = static("cell", doc="cell number, or row and column", choices=("cell", "coordinates"))
    lifetime: int = number(default=400, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        check_held_out("dark_rooms", self.size**2, self.held_out)

    @property
    def environment(self) -> DarkRoom:
        """The room that all goals share."""
        return DarkRoom(
            size=self.size,
            horizon=self.horizon,
            pays=self.pays,
            ends_when_paid=self.ends_when_paid,
            start=self.start,
            observation=self.observation,
        )

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    @property
    def num_tasks(self) -> int:
        """The goals of the part."""
        return len(self.goals)

    @property
    def goals(self) -> NDArray[np.int32]:
        """[num_tasks] the cells of the part."""
        return part_of(self.part, self.size**2, self.held_out, self.split_seed)

    def sample(self, key: Array) -> Task:
        """Draws a goal of the part."""
        goal_key, lifetime_key = jax.random.split(key)
        return self._task(lifetime_key, drawn(goal_key, self.goals))

    def sample_set(self, key: Array, count: int) -> Task:
        """The goals of the part in turn."""
        return jax.vmap(self._task)(jax.random.split(key, count), spread_evenly(self.goals, count))

    def _task(self, key: Array, goal: Array) -> Task:
        lifetime = sample_lifetime(key, self.lifetime, self.shortest_lifetime)
        return agent_task(DarkRoomParams(goal), lifetime)
