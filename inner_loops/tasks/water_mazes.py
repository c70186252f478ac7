"""Water mazes that differ in their platform: a fixed set of places, some of them held out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from inner_loops.environments.water_maze import WaterMaze, WaterMazeParams
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from inner_loops.tasks.splits import PARTS, check_held_out, drawn, part_of, spread_evenly
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["WaterMazes"]


@component
class WaterMazes:
    """Water mazes, one for each platform of a part of the split."""

    part: str = static("train", doc="which platforms", choices=PARTS)
    platforms: int = static(1024, doc="places, uniform on the disk", at_least=2)
    held_out: int = static(128, doc="of them that are held out", at_least=1)
    split_seed: int = static(0, doc="of the places and of the split", at_least=0)
    horizon: int = static(50, doc="time limit of an episode", at_least=1)
    lifetime: int = number(default=400, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        check_held_out("water_mazes", self.platforms, self.held_out)

    @property
    def environment(self) -> WaterMaze:
        """The disk that all platforms share."""
        return WaterMaze(horizon=self.horizon)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    @property
    def num_tasks(self) -> int:
        """The platforms of the part."""
        return len(self._numbers)

    @property
    def places(self) -> NDArray[np.float32]:
        """[num_tasks, 2] the platforms of the part."""
        return self._all_places[self._numbers]

    def sample(self, key: Array) -> Task:
        """Draws a platform of the part."""
        place_key, lifetime_key = jax.random.split(key)
        return self._task(lifetime_key, drawn(place_key, self._numbers))

    def sample_set(self, key: Array, count: int) -> Task:
        """The platforms of the part in turn."""
        return jax.vmap(self._task)(jax.random.split(key, count), spread_evenly(self._numbers, count))

    @property
    def _numbers(self) -> NDArray[np.int32]:
        return part_of(self.part, self.platforms, self.held_out, self.split_seed)

    @property
    def _all_places(self) -> NDArray[np.float32]:
        # A stream of its own: the split must not know the places.
        uniform = np.random.default_rng([self.split_seed, 1]).random((2, self.platforms))
        radius, angle = np.sqrt(uniform[0]), 2 * np.pi * uniform[1]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).astype(np.float32)

    def _task(self, key: Array, platform: Array) -> Task:
        lifetime = sample_lifetime(key, self.lifetime, self.shortest_lifetime)
        return agent_task(WaterMazeParams(jnp.asarray(self._all_places)[platform]), lifetime)
