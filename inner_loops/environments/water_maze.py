"""A water maze in two dimensions: a disk to swim in, and a platform that is not to be seen.

Stands in for the maze in three dimensions of Laskin et al. 2022 (arXiv:2210.14215), which a camera sees. The
agent begins in the middle and takes one of eight headings a step; the wall stops it. It sees where it is, and
is paid 1 at every step that ends on the platform. **Ours**: all sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["WaterMaze", "WaterMazeParams", "WaterMazeState"]

_HEADINGS = 8
_STEP = 0.1
_PLATFORM = 0.15  # radius: two opposite headings in turn stay on it


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
