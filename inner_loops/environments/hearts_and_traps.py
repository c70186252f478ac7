"""A grid with one heart and one trap: which of them pays, and which costs, differs from life to life.

After the grid world of Kirsch et al. 2022 (arXiv:2109.10781), whose agents are trained where hearts pay +1
and traps -1 and tested where the signs are swapped: only the reward tells.

The agent moves up, right, down or left; the border stops it. Stepping on an item collects it, and it
reappears on a random cell that holds neither agent nor item. An episode ends by its time limit alone, and
begins with all three on random cells.

**Not stated in the paper** as far as we could read it: the size, the time limit, what is observed. Three
forms:

* ``planes``: the grid one-hot, a plane each for agent, heart and trap.
* ``offsets``: rows and columns from the agent to the heart and to the trap, in units of the longest way.
* ``directions``: whether the heart lies up, right, down, left of the agent, and whether the trap does: 8
  bits.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["HeartsAndTraps", "HeartsAndTrapsParams", "HeartsAndTrapsState"]

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left: rows and columns
_SHAPES = {"offsets": (4,), "directions": (8,)}


class HeartsAndTrapsParams(NamedTuple):
    """One world.

    Attributes:
        hearts_pay: [] float32, what a heart pays; a trap costs as much.
        max_steps: [] int32, the time limit of an episode.
    """

    hearts_pay: Array
    max_steps: Array


class HeartsAndTrapsState(NamedTuple):
    """Where an episode is; cells are numbered row by row.

    Attributes:
        agent, heart, trap: [] int32, their cells, all distinct.
        time: [] int32, steps taken.
    """

    agent: Array
    heart: Array
    trap: Array
    time: Array


@component
class HeartsAndTraps(Environment[HeartsAndTrapsState, HeartsAndTrapsParams]):
    """Grid world of one heart and one trap that reappear; what they pay is to be found out."""

    size: int = static(5, doc="rows and columns", at_least=2)
    observation: str = static("planes", doc="what is seen", choices=("planes", "offsets", "directions"))

    @property
    def num_actions(self) -> int:
        """4."""
        return len(_MOVES)

    @property
    def num_states(self) -> int | None:
        """None: vectors or planes."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Rows, columns and planes, or a vector."""
        return _SHAPES.get(self.observation, (self.size, self.size, 3))

    @property
    def tallies(self) -> tuple[str, ...]:
        """How many hearts and traps were collected."""
        return ("hearts", "traps")

    def randomness(self, key: Array) -> tuple[Array, Array]:
        """Uniform numbers: one for the item that reappears, and three to place everything."""
        uniforms = jax.random.uniform(key, (4,))
        return uniforms[0], uniforms[1:]

    def reset_env(self, noise: Array, params: HeartsAndTrapsParams) -> tuple[Array, HeartsAndTrapsState]:
        """Agent, heart and trap on three random cells."""
        del params
        agent = self._place(noise[0])
        heart = self._place(noise[1], agent)
        trap = self._place(noise[2], agent, heart)
        state = HeartsAndTrapsState(agent, heart, trap, jnp.zeros((), jnp.int32))
        return self._observe(state), state

    def step_env(
        self, noise: Array, state: HeartsAndTrapsState, action: Array, params: HeartsAndTrapsParams
    ) -> tuple[Array, HeartsAndTrapsState, Array, Array, Array, Info]:
        """Moves, collects, and puts what was collected elsewhere."""
        row, column = self._row_and_column(state.agent)
        move = jnp.asarray(_MOVES, jnp.int32)[action]
        row, column = (jnp.clip(place, 0, self.size - 1) for place in (row + move[0], column + move[1]))
        agent = row * self.size + column
        took_heart, took_trap = agent == state.heart, agent == state.trap
        heart = jnp.where(took_heart, self._place(noise, agent, state.trap), state.heart)
        trap = jnp.where(took_trap, self._place(noise, agent, state.heart), state.trap)
        new_state = HeartsAndTrapsState(agent, heart, trap, state.time + 1)
        hearts, traps = took_heart.astype(jnp.float32), took_trap.astype(jnp.float32)
        reward = params.hearts_pay * (hearts - traps)
        info = {"tallies": {"hearts": hearts, "traps": traps}}
        truncated = new_state.time >= params.max_steps
        return self._observe(new_state), new_state, reward, jnp.zeros((), bool), truncated, info

    def _row_and_column(self, cell: Array) -> tuple[Array, Array]:
        return cell // self.size, cell % self.size

    def _place(self, uniform: Array, *taken: Array) -> Array:
        """[] int32, a random cell that is not taken."""
        cells = jnp.arange(self.size**2)
        free = jnp.ones(self.size**2, bool)
        for cell in taken:
            free = free & (cells != cell)
        counted = jnp.cumsum(free)
        return jnp.argmax(counted > uniform * counted[-1]).astype(jnp.int32)

    def _observe(self, state: HeartsAndTrapsState) -> Array:
        if self.observation == "planes":
            cells = jnp.stack([state.agent, state.heart, state.trap])
            planes = jax.nn.one_hot(cells, self.size**2)
            return planes.T.reshape(self.observation_shape)
        row, column = self._row_and_column(state.agent)
        ways = [self._row_and_column(item) for item in (state.heart, state.trap)]
        offsets = jnp.stack([part for rows, columns in ways for part in (rows - row, columns - column)])
        if self.observation == "offsets":
            return offsets.astype(jnp.float32) / (self.size - 1)
        down, right = offsets[0::2], offsets[1::2]  # of heart and trap
        lies = jnp.stack([down < 0, right > 0, down > 0, right < 0], axis=-1)  # in the order of the actions
        return lies.reshape(-1).astype(jnp.float32)
