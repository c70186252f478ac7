"""Grid worlds with objects that pay, end episodes and reappear, tabular or random.

Oh et al. 2020 (arXiv 2007.08794), appendix A. An object has a reward, a probability ``eps_term`` that
collecting it ends the episode and a probability ``eps_respawn`` that it reappears at each later step.

The order inside a step: the agent moves; it collects objects that were there before the step; objects that
were absent before the step draw whether they reappear; the collected ones vanish; the episode terminates,
or is truncated after ``max_steps`` steps. So a collected object is seen absent at least once, even with
``eps_respawn`` 1, and one that reappears under the agent is collected by the next step at the earliest.

Actions:

* ``compass``: stay, up, right, down, left; entering an object's cell, or staying on it, collects.
* ``move``: the 3 x 3 neighbourhood row by row (4 is stay), collecting likewise.
* ``move_and_collect``: 18. The first nine move as above and collect nothing; the last nine collect at that
  neighbour without moving (13: at the agent's own cell). That is how this project reads the paper's
  "9 movement actions and 9 actions for collecting objects at adjacent positions".
* ``mixed``: 18, of which a world may allow the first nine only (``params.collects`` false), and then they
  collect as in ``move``. There an action above 8 is masked; taken nevertheless, it is its move.

Walls and the border stop a move; diagonal moves squeeze past corners.

**Not stated in the paper**: the order above, the start cell (here one per world), wall maps (pictures
only). With ``random_positions`` objects are placed anew for each episode and reappear on random cells that
hold neither wall, agent nor object; the agent starts at ``params.start`` there too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inner_loops.environments.base import Environment, Info
from inner_loops.environments.grid_world_planning import GridModel, optimal_value, policy_value
from metalab.components import component, static

__all__ = ["GridWorld", "GridWorldParams", "GridWorldState"]

_COMPASS = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))
_SQUARE = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
_NUM_ACTIONS = {"compass": 5, "move": 9, "move_and_collect": 18, "mixed": 18}
_NOWHERE = -1  # a cell that no object stands on


class GridWorldParams(NamedTuple):
    """One world; C = max_height * max_width cells numbered row by row, M objects.

    Attributes:
        walls: [C] bool; cells outside a world that is smaller than the largest are walls.
        positions: [M] int32, the objects' cells, all distinct; not read with ``random_positions``.
        reward: [M] float32.
        eps_term: [M] float32.
        eps_respawn: [M] float32.
        present: [M] bool, the objects that this world has (the others are padding).
        start: [] int32, the agent's first cell.
        max_steps: [] int32, the time limit of an episode.
        collects: [] bool, whether a ``mixed`` world has the nine collecting actions; not read otherwise.
    """

    walls: Array
    positions: Array
    reward: Array
    eps_term: Array
    eps_respawn: Array
    present: Array
    start: Array
    max_steps: Array
    collects: Array


class GridWorldState(NamedTuple):
    """Where an episode is.

    Attributes:
        cell: [] int32, the agent's.
        objects: [M] bool, which objects are there.
        positions: [M] int32, their cells of this episode; [0] where they are the world's own.
        time: [] int32, steps taken.
    """

    cell: Array
    objects: Array
    positions: Array
    time: Array


@component
class GridWorld(Environment[GridWorldState, GridWorldParams]):
    """Grid world of objects that pay, terminate and reappear (Oh et al. 2020)."""

    max_height: int = static(default=6, doc="rows of the largest world", at_least=1)
    max_width: int = static(default=6, doc="columns of the largest world", at_least=1)
    num_objects: int = static(default=3, doc="objects of the richest world", at_least=1, at_most=16)
    actions: str = static(default="compass", doc="the action set", choices=tuple(_NUM_ACTIONS))
    observation: str = static(
        default="index",
        doc="state index, or planes of types, agent and walls",
        choices=("index", "planes"),
    )
    random_positions: bool = static(default=False, doc="place objects anew for each episode and reappearance")
    object_types: tuple[int, ...] = static(
        default=(), doc="plane of each object, from 0; empty: a plane for each"
    )

    def __post_init__(self) -> None:
        if self.random_positions and self.observation == "index":
            raise ValueError(
                "grid_world: random_positions=True with observation='index' would hide where objects are; "
                "use observation='planes'"
            )
        if self.object_types and len(self.object_types) != self.num_objects:
            raise ValueError(
                f"grid_world: object_types={self.object_types} must name a plane for each of the "
                f"num_objects={self.num_objects} objects"
            )

    @property
    def num_cells(self) -> int:
        """C."""
        return self.max_height * self.max_width

    @property
    def num_actions(self) -> int:
        """A: 5, 9 or 18."""
        return _NUM_ACTIONS[self.actions]

    @property
    def num_states(self) -> int | None:
        """C * 2**M: the agent's cell times the set of objects that are there."""
        return self.num_cells * 2**self.num_objects if self.observation == "index" else None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """``()``, or rows, columns and planes (object types, then the agent, then walls)."""
        if self.observation == "index":
            return ()
        return (self.max_height, self.max_width, len(set(self._types)) + 2)

    @property
    def optimum_known(self) -> bool:
        """Planning needs objects that stay where they are."""
        return not self.random_positions

    def action_mask(self, params: GridWorldParams) -> Array:
        """[A] bool; the second nine of a ``mixed`` world only where it has them."""
        if self.actions != "mixed":
            return jnp.ones((self.num_actions,), bool)
        return jnp.logical_or(jnp.arange(self.num_actions) < len(_SQUARE), params.collects)

    def randomness(self, key: Array) -> tuple[Array, Array]:
        """Random words: one for termination, M for reappearance, and one for each placing of objects."""
        step_size = 1 + self.num_objects
        places = int(self.random_positions)
        words = jax.random.bits(key, (step_size + 2 * places,), jnp.uint32)
        return words[: step_size + places], words[step_size + places :]

    def reset_env(self, noise: Array, params: GridWorldParams) -> tuple[Array, GridWorldState]:
        """All objects are there, the agent at the start."""
        positions = jnp.zeros((0,), jnp.int32)
        if self.random_positions:
            empty = jnp.zeros((self.num_objects,), jnp.int32)
            free = self._free(params, params.start)
            positions = _place(noise[0], free, empty, params.present)
        state = GridWorldState(params.start, params.present, positions, jnp.zeros((), jnp.int32))
        return self._observe(state, params), state

    def step_env(
        self, noise: Array, state: GridWorldState, action: Array, params: GridWorldParams
    ) -> tuple[Array, GridWorldState, Array, Array, Array, Info]:
        """Moves, collects, lets absent objects reappear, removes the collected ones, terminates."""
        cell, reached = self._move(params, action, state.cell)
        positions = self._positions(state, params)
        collected = state.objects & (positions == reached)
        reward = jnp.sum(jnp.where(collected, params.reward, 0.0))
        uniforms = (noise[: 1 + self.num_objects] >> 8) * jnp.float32(2**-24)
        # objects stand on distinct cells, so at most one is collected and one draw is enough
        terminated = jnp.any(collected & (uniforms[0] < params.eps_term))
        absent = params.present & ~state.objects
        returning = absent & (uniforms[1:] < params.eps_respawn)
        kept = state.objects & ~collected
        if self.random_positions:
            taken = jnp.any(kept[:, None] & (positions[:, None] == jnp.arange(self.num_cells)), axis=0)
            free = self._free(params, cell) & ~taken
            positions = _place(noise[-1], free, positions, returning)
        time = state.time + 1
        new_state = GridWorldState(
            cell, kept | returning, positions if self.random_positions else state.positions, time
        )
        truncated = (time >= params.max_steps) & ~terminated
        return self._observe(new_state, params), new_state, reward, terminated, truncated, {}

    def exact_return(self, params: GridWorldParams, policy: Array) -> Array:
        """[] expected undiscounted return of an episode.

        Args:
            params: the world.
            policy: [num_states, A] action probabilities.

        Raises:
            ValueError: the observation is not a state index, so there is no table to read.
        """
        value = policy_value(self.model(params), params.max_steps, self._table(policy))
        return value[params.start, self._set(params.present)]

    def exact_values(self, params: GridWorldParams, policy: Array, discount: Array) -> Array:
        """[num_states] expected discounted return from each state, a whole episode's time ahead.

        Args:
            params: the world.
            policy: [num_states, A] action probabilities.
            discount: [] gamma.

        Raises:
            ValueError: the observation is not a state index, so there is no table to read.
        """
        return policy_value(self.model(params), params.max_steps, self._table(policy), discount).reshape(-1)

    def optimal_return(self, params: GridWorldParams) -> Array:
        """[] the best expected undiscounted return of an episode, of a policy that may watch the clock.

        Raises:
            ValueError: objects move, so the states are too many to plan over.
        """
        value = optimal_value(self.model(params), params.max_steps)
        return value[params.start, self._set(params.present)]

    def model(self, params: GridWorldParams) -> GridModel:
        """The transition law, for planning.

        Raises:
            ValueError: objects move, so the states are too many to plan over.
        """
        if self.random_positions:
            raise ValueError(
                "grid_world: random_positions=True has too many states to plan over; "
                "use random_positions=False"
            )
        cells = jnp.arange(self.num_cells)[None]
        next_cell, reached = self._move(params, jnp.arange(self.num_actions)[:, None], cells)
        hit = (reached[..., None] == params.positions) & params.present
        none = jnp.asarray(self.num_objects, jnp.int32)
        return GridModel(
            next_cell=next_cell,
            reached=jnp.where(hit.any(-1), hit.argmax(-1).astype(jnp.int32), none),
            allowed=self.action_mask(params),
            reward=params.reward,
            eps_term=params.eps_term,
            eps_respawn=jnp.where(params.present, params.eps_respawn, 0.0),
        )

    def _table(self, policy: Array) -> Array:
        """[C, 2**M, A] the policy by cell and set of objects."""
        if self.num_states is None:
            raise ValueError(
                f"grid_world: observation={self.observation!r} has no exact return of a table; "
                "use observation='index'"
            )
        return policy.reshape(self.num_cells, 2**self.num_objects, self.num_actions)

    @property
    def _types(self) -> tuple[int, ...]:
        return self.object_types or tuple(range(self.num_objects))

    def _positions(self, state: GridWorldState, params: GridWorldParams) -> Array:
        return state.positions if self.random_positions else params.positions

    def _move(self, params: GridWorldParams, action: Array, cell: Array) -> tuple[Array, Array]:
        """Where an action leads, and the cell that it collects at; arguments broadcast."""
        offsets = _COMPASS if self.actions == "compass" else _SQUARE
        table = jnp.asarray(_neighbours(self.max_height, self.max_width, offsets))
        target = table[action % len(offsets), cell]
        blocked = (target == _NOWHERE) | params.walls[target]
        moved = jnp.where(blocked, cell, target)
        if self.actions in ("compass", "move"):
            return moved, moved
        separate = params.collects if self.actions == "mixed" else True
        collecting = action >= len(offsets)
        reached = jnp.where(separate, jnp.where(collecting, target, _NOWHERE), moved)
        return jnp.where(collecting & separate, cell, moved), reached

    def _free(self, params: GridWorldParams, cell: Array) -> Array:
        return ~params.walls & (jnp.arange(self.num_cells) != cell)

    def _set(self, objects: Array) -> Array:
        return jnp.sum(objects.astype(jnp.int32) << jnp.arange(self.num_objects))

    def _observe(self, state: GridWorldState, params: GridWorldParams) -> Array:
        if self.observation == "index":
            return state.cell * 2**self.num_objects + self._set(state.objects)
        cells = jnp.arange(self.num_cells)
        layers = state.objects[:, None] & (self._positions(state, params)[:, None] == cells)
        types = np.asarray(self._types)
        planes = [jnp.any(layers[types == plane], axis=0) for plane in sorted(set(self._types))]
        stacked = jnp.stack([*planes, cells == state.cell, params.walls], axis=-1)
        return stacked.reshape(self.observation_shape).astype(jnp.float32)


def _place(word: Array, free: Array, positions: Array, moving: Array) -> Array:
    """Gives the ``moving`` objects new cells, one after the other, uniform over those that are free.

    One random word orders all cells: a hash of word and cell in the high bits, the cell itself in the low
    ones, so a plain minimum finds the first free cell.

    Args:
        word: [] uint32, random.
        free: [C] bool, at least as many as there are objects.
        positions: [M] int32.
        moving: [M] bool.
    """
    cells = jnp.arange(free.shape[0], dtype=jnp.uint32)
    low_bits = jnp.uint32((1 << free.shape[0].bit_length()) - 1)
    order = (_mixed(word + cells * jnp.uint32(0x9E3779B9)) & ~low_bits) | cells
    places = []
    for index in range(positions.shape[0]):  # a handful; each one narrows what is free for the next
        first = jnp.min(jnp.where(free, order, jnp.uint32(0xFFFFFFFF))) & low_bits
        place = jnp.where(moving[index], first.astype(jnp.int32), positions[index])
        places.append(place)
        free = free & ~(moving[index] & (cells == place))
    return jnp.stack(places)


def _mixed(word: Array) -> Array:
    """The 32-bit finaliser of MurmurHash3 (Appleby 2011): every bit in changes every bit out."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


@functools.cache
def _neighbours(height: int, width: int, offsets: tuple[tuple[int, int], ...]) -> np.ndarray:
    """[len(offsets), height * width] int32: the cell at each offset; ``_NOWHERE`` across the border."""
    rows, columns = np.divmod(np.arange(height * width), width)
    table = []
    for row_step, column_step in offsets:
        row, column = rows + row_step, columns + column_step
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        table.append(np.where(inside, row * width + column, _NOWHERE))
    return np.stack(table).astype(np.int32)
