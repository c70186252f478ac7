"""Dark rooms that differ in the places of key and door; some pairs of places are held out.

What is held out is a pair: its key's place may occur in training with another door, and its door's place with
another key. An agent that has learned where keys tend to be has learned nothing, as every place is as likely.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from inner_loops.environments.dark_key_to_door import DarkKeyToDoor, KeyToDoorParams
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from inner_loops.tasks.splits import PARTS, check_held_out, drawn, part_of, spread_evenly
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["KeyToDoorRooms"]


@component
class KeyToDoorRooms:
    """Dark rooms with a key and a door, one for each pair of a part of the split (Laskin et al. 2022)."""

    part: str = static("train", doc="which pairs of places", choices=PARTS)
    held_out: int = static(1000, doc="pairs that are held out", at_least=1)
    split_seed: int = static(0, doc="of the split", at_least=0)
    size: int = static(9, doc="rows and columns", at_least=2)
    horizon: int = static(50, doc="time limit of an episode", at_least=1)
    start: str = static("random", doc="where episodes begin", choices=("centre", "random"))
    ends_at_door: bool = static(True, doc="an episode ends when the door opens")
    sees_key: bool = static(False, doc="observe has_key * size ** 2 + cell instead of the cell")
    lifetime: int = number(default=400, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        check_held_out("key_to_door_rooms", self.size**4, self.held_out)

    @property
    def environment(self) -> DarkKeyToDoor:
        """The room that all pairs share."""
        return DarkKeyToDoor(
            size=self.size,
            horizon=self.horizon,
            start=self.start,
            ends_at_door=self.ends_at_door,
            sees_key=self.sees_key,
        )

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    @property
    def num_tasks(self) -> int:
        """The pairs of the part."""
        return len(self.pairs)

    @property
    def pairs(self) -> NDArray[np.int32]:
        """[num_tasks] the pairs of the part, as ``key * size ** 2 + door``."""
        return part_of(self.part, self.size**4, self.held_out, self.split_seed)

    def sample(self, key: Array) -> Task:
        """Draws a pair of the part."""
        pair_key, lifetime_key = jax.random.split(key)
        return self._task(lifetime_key, drawn(pair_key, self.pairs))

    def sample_set(self, key: Array, count: int) -> Task:
        """The pairs of the part in turn, in an order that is random and always the same."""
        return jax.vmap(self._task)(jax.random.split(key, count), spread_evenly(self.pairs, count))

    def _task(self, key: Array, pair: Array) -> Task:
        lifetime = sample_lifetime(key, self.lifetime, self.shortest_lifetime)
        return agent_task(KeyToDoorParams(*jnp.divmod(pair, self.size**2)), lifetime)
