"""Dark Key-to-Door: a key and then a door, neither of which is to be seen (Laskin et al. 2022).

arXiv:2210.14215: 9 x 9 cells, episodes of 50 steps from a random cell; 1 once for stepping on the key, 1 once
for stepping on the door after that. The actions are: stay, up, right, down, left; the cell is seen.

**Not in the paper**: episodes end at the door unless told otherwise, as nothing is left to be paid for and a
table over cells and the key cannot hold what follows. A tabular source must see whether it has the key
(``sees_key``); the student need not, as it remembers what it was paid for.
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
    towards,
)
from metalab.components import component, static

__all__ = ["DarkKeyToDoor", "KeyToDoorParams", "KeyToDoorState"]


class KeyToDoorParams(NamedTuple):
    """One room.

    Attributes:
        key, door: [] int32 cells; where they are the same one, the door opens a step after the key is found.
    """

    key: Array
    door: Array


class KeyToDoorState(NamedTuple):
    """Where an episode is.

    Attributes:
        cell: [] int32, of the agent.
        time: [] int32, steps taken.
        has_key, opened: [] bool.
    """

    cell: Array
    time: Array
    has_key: Array
    opened: Array


@component
class DarkKeyToDoor(Room[KeyToDoorState, KeyToDoorParams]):
    """Room with a key and a door that are not to be seen (Laskin et al. 2022)."""

    size: int = static(9, doc="rows and columns", at_least=2)
    horizon: int = static(50, doc="time limit of an episode", at_least=1)
    start: str = static("random", doc="where episodes begin", choices=("centre", "random"))
    ends_at_door: bool = static(True, doc="an episode ends when the door opens")
    sees_key: bool = static(False, doc="observe has_key * size ** 2 + cell instead of the cell")

    @property
    def num_states(self) -> int:
        """Cells, twice where it is seen whether the agent has the key."""
        return self.size**2 * (2 if self.sees_key else 1)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """()."""
        return ()

    def optimal_return(self, params: KeyToDoorParams) -> Array:
        """[] straight to the key and then to the door; the mean over the cells that episodes begin in."""
        to_key = jnp.maximum(distances(self.size, params.key), 1)
        to_door = to_key + jnp.maximum(distances(self.size, params.door)[params.key], 1)
        found = (to_key <= self.horizon).astype(jnp.float32) + (to_door <= self.horizon)
        return self.mean_over_starts(found)

    def exact_return(self, params: KeyToDoorParams, policy: Array) -> Array:
        """[] expected return of ``policy`` [num_states, 5]: one backup for each step of the horizon."""
        after = jnp.asarray(next_cells(self.size))
        without, having = policy[: self.size**2], policy[-(self.size**2) :]
        takes, opens = (after == place for place in (params.key, params.door))

        def backup(values: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], None]:
            before, holding = values
            with_key = jnp.sum(having * jnp.where(opens, 1.0, holding[after]), axis=-1)
            reached = jnp.where(takes, 1.0 + holding[after], before[after])
            return (jnp.sum(without * reached, axis=-1), with_key), None

        zeros = jnp.zeros(self.size**2, policy.dtype)
        (first, _), _ = jax.lax.scan(backup, (zeros, zeros), length=self.horizon)
        return self.mean_over_starts(first)

    def expert_action(self, params: KeyToDoorParams, state: KeyToDoorState) -> Array:
        """[] int32 the next move on a shortest way to the key, or with it to the door."""
        return towards(self.size, state.cell, jnp.where(state.has_key, params.door, params.key))

    def reset_env(self, noise: Array, params: KeyToDoorParams) -> tuple[Array, KeyToDoorState]:
        """The agent anywhere, or in the centre, without the key."""
        del params
        cell, no = beginning(self.size, self.start, noise), jnp.zeros((), bool)
        state = KeyToDoorState(cell, jnp.zeros((), jnp.int32), no, no)
        return self._observe(state), state

    def step_env(
        self, noise: tuple[()], state: KeyToDoorState, action: Array, params: KeyToDoorParams
    ) -> tuple[Array, KeyToDoorState, Array, Array, Array, Info]:
        """Moves, takes the key, opens the door."""
        del noise
        cell = moved(self.size, state.cell, action)
        takes = (cell == params.key) & ~state.has_key
        opens = (cell == params.door) & state.has_key & ~state.opened
        after = KeyToDoorState(cell, state.time + 1, state.has_key | takes, state.opened | opens)
        terminated = opens if self.ends_at_door else jnp.zeros((), bool)
        truncated = (after.time >= self.horizon) & ~terminated
        return self._observe(after), after, (takes | opens).astype(jnp.float32), terminated, truncated, {}

    def _observe(self, state: KeyToDoorState) -> Array:
        return state.cell + state.has_key * self.size**2 if self.sees_key else state.cell
