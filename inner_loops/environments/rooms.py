"""Square rooms without inner walls: what worlds in the dark share. Cells are numbered row by row."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from inner_loops.environments.base import Environment

__all__ = [
    "Room",
    "beginning",
    "centre",
    "distances",
    "moved",
    "next_cells",
    "row_and_column",
    "towards",
]

_MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))  # stay, up, right, down, left: rows and columns

Params = TypeVar("Params")
State = TypeVar("State")


class Room(Environment[State, Params]):
    """A room in the dark: subclasses have fields ``size`` and ``start``, and say what is to be found."""

    size: Any
    start: Any

    @property
    def num_actions(self) -> int:
        """5."""
        return len(_MOVES)

    @property
    def optimum_known(self) -> bool:
        """True."""
        return True

    def randomness(self, key: Array) -> tuple[tuple[()], Array]:
        """Nothing for a step; one uniform number for a beginning anywhere."""
        return (), jax.random.uniform(key) if self.start == "random" else jnp.zeros(())

    def mean_over_starts(self, values: Array) -> Array:
        """[] what values [size ** 2] of the cells are worth to an episode that has not begun."""
        return values[centre(self.size)] if self.start == "centre" else jnp.mean(values)


def centre(size: int) -> int:
    """The cell in the middle; with an even size the one right below it."""
    return (size // 2) * size + size // 2


def beginning(size: int, start: str, uniform: Array) -> Array:
    """[] int32 the cell in which an episode begins: the centre, or with ``random`` any one.

    Args:
        size: rows and columns.
        start: ``centre`` or ``random``.
        uniform: [] in [0, 1).
    """
    if start == "centre":
        return jnp.asarray(centre(size), jnp.int32)
    return jnp.minimum(jnp.floor(uniform * size**2), size**2 - 1).astype(jnp.int32)


def moved(size: int, cell: Array, action: Array) -> Array:
    """[] int32 the cell after an action; the walls clip."""
    move = jnp.asarray(_MOVES, jnp.int32)[action]
    row, column = row_and_column(size, cell)
    row, column = (jnp.clip(place, 0, size - 1) for place in (row + move[0], column + move[1]))
    return row * size + column


def row_and_column(size: int, cell: Array) -> tuple[Array, Array]:
    """Of a cell."""
    return cell // size, cell % size


def next_cells(size: int) -> NDArray[np.int32]:
    """[size ** 2, actions] the cell after each action in each cell."""
    rows, columns = np.divmod(np.arange(size**2)[:, None], size)
    moves = np.asarray(_MOVES)
    rows, columns = (np.clip(place, 0, size - 1) for place in (rows + moves[:, 0], columns + moves[:, 1]))
    return (rows * size + columns).astype(np.int32)


def distances(size: int, cell: Array) -> Array:
    """[size ** 2] int32 steps from every cell to ``cell`` []."""
    rows, columns = row_and_column(size, jnp.arange(size**2))
    row, column = row_and_column(size, cell)
    return jnp.abs(rows - row) + jnp.abs(columns - column)


def towards(size: int, cell: Array, target: Array) -> Array:
    """[] int32 the first action that comes as near to ``target`` [] as one step can; on it, to stay."""
    return jnp.argmin(distances(size, target)[jnp.asarray(next_cells(size))[cell]]).astype(jnp.int32)
