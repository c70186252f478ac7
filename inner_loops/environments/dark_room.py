"""Dark Room: a room in which the agent sees where it is and not where the goal is (Laskin et al. 2022).

arXiv:2210.14215: 9 x 9 cells, episodes of 20 steps from the centre, 1 for every step that ends at the goal;
in the hard version 17 x 17 cells, and 1 once an episode. The actions are: stay, up, right, down, left.

**Not in the paper**: ``ends_when_paid``. Where a goal pays once, whether it has paid is not to be seen, and a
table over cells cannot hold what follows; a source that learns one needs the episode to end there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Info
from inner_loops.environments.rooms import (
    Room,
    beginning,
    distances,
    moved,
    next_cells,
    row_and_column,
    towards,
)
from metalab.components import component, static

__all__ = ["DarkRoom", "DarkRoomParams", "DarkRoomState"]


class DarkRoomParams(NamedTuple):
    """One room.

    Attributes:
        goal: [] int32 cell.
    """

    goal: Array


class DarkRoomState(NamedTuple):
    """Where an episode is.

    Attributes:
        cell: [] int32, of the agent.
        time: [] int32, steps taken.
        paid: [] bool, the goal has paid in this episode.
    """

    cell: Array
    time: Array
    paid: Array


@component
class DarkRoom(Room[DarkRoomState, DarkRoomParams]):
    """Room whose goal is not to be seen (Laskin et al. 2022)."""

    size: int = static(9, doc="rows and columns", at_least=2)
    horizon: int = static(20, doc="time limit of an episode", at_least=1)
    pays: str = static(
        "always", doc="1 at every step that ends at the goal, or once an episode", choices=("always", "once")
    )
    ends_when_paid: bool = static(False, doc="an episode ends when the goal pays")
    start: str = static("centre", doc="where episodes begin", choices=("centre", "random"))
    observation: str = static("cell", doc="cell number, or row and column", choices=("cell", "coordinates"))

    @property
    def num_states(self) -> int | None:
        """Cells; None where rows and columns are seen."""
        return self.size**2 if self.observation == "cell" else None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """() for a cell number, else (2,)."""
        return () if self.observation == "cell" else (2,)

    def optimal_return(self, params: DarkRoomParams) -> Array:
        """[] straight to the goal, and staying there; the mean over the cells that episodes begin in."""
        # Standing on the goal, the first step that pays is the first one.
        steps = jnp.maximum(distances(self.size, params.goal), 1)
        best = jnp.maximum(self.horizon - steps + 1, 0)
        if self.pays == "once" or self.ends_when_paid:
            best = jnp.minimum(best, 1)
        return self.mean_over_starts(best.astype(jnp.float32))

    def exact_return(self, params: DarkRoomParams, policy: Array) -> Array:
        """[] expected return of ``policy`` [num_states, 5]: one backup for each step of the horizon.

        Raises:
            ValueError: the observation is not a cell number, so there is no table to read.
        """
        if self.observation != "cell":
            raise ValueError(
                f"dark_room: observation={self.observation!r} has no exact return: it is no index"
            )
        after = jnp.asarray(next_cells(self.size))
        reward = (after == params.goal).astype(policy.dtype)
        goes_on = 1.0 - reward if self.pays == "once" or self.ends_when_paid else jnp.ones_like(reward)

        def backup(value: Array, _: Any) -> tuple[Array, None]:
            return jnp.sum(policy * (reward + goes_on * value[after]), axis=-1), None

        first = jax.lax.scan(backup, jnp.zeros(self.size**2, policy.dtype), length=self.horizon)[0]
        return self.mean_over_starts(first)

    def expert_action(self, params: DarkRoomParams, state: DarkRoomState) -> Array:
        """[] int32 the next move on a shortest way to the goal; there, to stay."""
        return towards(self.size, state.cell, params.goal)

    def reset_env(self, noise: Array, params: DarkRoomParams) -> tuple[Array, DarkRoomState]:
        """The agent in the centre, or anywhere."""
        del params
        cell = beginning(self.size, self.start, noise)
        state = DarkRoomState(cell, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        return self._observe(cell), state

    def step_env(
        self, noise: tuple[()], state: DarkRoomState, action: Array, params: DarkRoomParams
    ) -> tuple[Array, DarkRoomState, Array, Array, Array, Info]:
        """Moves, and is paid at the goal."""
        del noise
        cell = moved(self.size, state.cell, action)
        pays = cell == params.goal
        if self.pays == "once":
            pays = pays & ~state.paid
        after = DarkRoomState(cell, state.time + 1, state.paid | pays)
        terminated = pays if self.ends_when_paid else jnp.zeros((), bool)
        truncated = (after.time >= self.horizon) & ~terminated
        return self._observe(cell), after, pays.astype(jnp.float32), terminated, truncated, {}

    def _observe(self, cell: Array) -> Array:
        if self.observation == "cell":
            return cell
        return jnp.stack(row_and_column(self.size, cell)).astype(jnp.float32)
