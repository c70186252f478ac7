"""A water maze in two dimensions: a disk to swim in, and a platform that is not to be seen.

Stands in for the maze in three dimensions of Laskin et al. 2022 (arXiv:2210.14215), which a camera sees. The
agent begins in the middle and takes one of eight headings a step; the wall stops it. It sees where it is, and
is paid 1 at every step that ends on the platform. **Ours**: all sizes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["WaterMaze", "WaterMazeParams", "WaterMazeState"]

_HEADINGS = 8
_STEP = 0.1
_PLATFORM = 0.15  # radius: two opposite headings in turn stay on it
_FARTHEST = 10  # steps after which every platform of the disk has been reached


class WaterMazeParams(NamedTuple):
    """One maze.

    Attributes:
        platform: [2] float32, its middle.
    """

    platform: Array


class WaterMazeState(NamedTuple):
    """Where an episode is.

    Attributes:
        place: [2] float32, of the agent, in the unit disk.
        time: [] int32, steps taken.
    """

    place: Array
    time: Array


@component
class WaterMaze(Environment[WaterMazeState, WaterMazeParams]):
    """Disk with a platform that is not to be seen (after Laskin et al. 2022)."""

    horizon: int = static(50, doc="time limit of an episode", at_least=1)

    @property
    def num_actions(self) -> int:
        """8."""
        return _HEADINGS

    @property
    def num_states(self) -> int | None:
        """None: a place is seen."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """(2,)."""
        return (2,)

    @property
    def optimum_known(self) -> bool:
        """True."""
        return True

    def optimal_return(self, params: WaterMazeParams) -> Array:
        """[] the fewest headings to the platform, and staying there: wherever on it, one heading stays."""
        places, steps = _reached()
        on_it = jnp.linalg.norm(jnp.asarray(places) - params.platform, axis=-1) <= _PLATFORM
        # On the platform from the beginning, the first step that pays is the first one.
        first = jnp.maximum(jnp.min(jnp.where(on_it, jnp.asarray(steps), self.horizon + 1)), 1)
        return jnp.maximum(self.horizon + 1 - first, 0).astype(jnp.float32)

    def randomness(self, key: Array) -> tuple[tuple[()], tuple[()]]:
        """None."""
        del key
        return (), ()

    def reset_env(self, noise: tuple[()], params: WaterMazeParams) -> tuple[Array, WaterMazeState]:
        """The agent in the middle."""
        del noise, params
        place = jnp.zeros(2, jnp.float32)
        return place, WaterMazeState(place, jnp.zeros((), jnp.int32))

    def step_env(
        self, noise: tuple[()], state: WaterMazeState, action: Array, params: WaterMazeParams
    ) -> tuple[Array, WaterMazeState, Array, Array, Array, Info]:
        """Swims, and is paid on the platform."""
        del noise
        angle = action * jnp.asarray(2 * jnp.pi / _HEADINGS, jnp.float32)
        place = state.place + _STEP * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        place = place / jnp.maximum(jnp.linalg.norm(place), 1.0)
        after = WaterMazeState(place, state.time + 1)
        reward = (jnp.linalg.norm(place - params.platform) <= _PLATFORM).astype(jnp.float32)
        return place, after, reward, jnp.zeros((), bool), after.time >= self.horizon, {}


@functools.cache
def _reached() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """[P, 2] all places that some headings lead to from the middle, the wall met or not, and [P] how many.

    Headings add up to the points of a lattice, so that there are 8361 places, not 8^10.
    """
    angles = np.arange(_HEADINGS) * 2 * np.pi / _HEADINGS
    moves = _STEP * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    places, steps, last = np.zeros((1, 2)), np.zeros(1, np.int32), np.zeros((1, 2))
    for step in range(1, _FARTHEST + 1):
        after = (last[:, None] + moves).reshape(-1, 2)
        after = after / np.maximum(np.linalg.norm(after, axis=-1, keepdims=True), 1.0)
        # The first of each place is kept: one that was reached before stays with fewer steps.
        together = np.concatenate([places, after])
        first = np.sort(np.unique(together.round(5) + 0.0, axis=0, return_index=True)[1])
        last = together[first[first >= len(places)]]
        places = np.concatenate([places, last])
        steps = np.concatenate([steps, np.full(len(last), step, np.int32)])
    return places.astype(np.float32), steps
