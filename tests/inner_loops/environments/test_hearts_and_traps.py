"""The grid of a heart and a trap: steps by hand, what is seen, where things reappear."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.hearts_and_traps import (
    HeartsAndTraps,
    HeartsAndTrapsParams,
    HeartsAndTrapsState,
)
from inner_loops.tasks.heart_trap_grids import HeartTrapGrids

UP, RIGHT, DOWN, LEFT = range(4)


def params(pays: float = 1.0, max_steps: int = 50) -> HeartsAndTrapsParams:
    return HeartsAndTrapsParams(jnp.asarray(pays), jnp.asarray(max_steps, jnp.int32))


def at(agent: int, heart: int, trap: int, time: int = 0) -> HeartsAndTrapsState:
    return HeartsAndTrapsState(*(jnp.asarray(value, jnp.int32) for value in (agent, heart, trap, time)))


def stepped(state: HeartsAndTrapsState, action: int, world: HeartsAndTrapsParams, noise: float = 0.0):
    """Cells after the step, reward, whether the time was up, and what was measured."""
    grid = HeartsAndTraps(size=3)
    _, after, reward, terminated, truncated, info = grid.step_env(
        jnp.asarray(noise), state, jnp.asarray(action), world
    )
    assert not bool(terminated)
    cells = (int(after.agent), int(after.heart), int(after.trap))
    measured = {name: float(value) for name, value in info["tallies"].items()}
    return cells, float(reward), bool(truncated), measured


def test_steps_by_hand():
    # 0 1 2
    # 3 4 5
    # 6 7 8
    none = {"hearts": 0.0, "traps": 0.0}
    assert stepped(at(4, 8, 2), UP, params()) == ((1, 8, 2), 0.0, False, none)
    assert stepped(at(3, 8, 2), LEFT, params()) == ((3, 8, 2), 0.0, False, none)  # the border
    # the heart at 5 reappears on the first free cell, for the agent is at 5 and the trap at 2
    assert stepped(at(4, 5, 2), RIGHT, params()) == ((5, 0, 2), 1.0, False, {"hearts": 1.0, "traps": 0.0})
    # with the signs swapped a trap pays; free are 0, 1, 2, 3, 4, 6, 8 (agent at 7, heart at 5): the last one
    found = stepped(at(4, 5, 7), DOWN, params(-1.0), noise=0.999)
    assert found == ((7, 5, 8), 1.0, False, {"hearts": 0.0, "traps": 1.0})
    assert stepped(at(4, 5, 7), RIGHT, params(-1.0))[1] == -1.0
    assert stepped(at(4, 8, 2, time=9), UP, params(max_steps=10))[2]


def test_what_is_seen():
    state = at(4, 2, 3)  # the heart up and to the right of the agent, the trap on its left
    planes = HeartsAndTraps(size=3)._observe(state)
    assert planes.shape == (3, 3, 3) and float(planes.sum()) == 3.0
    assert planes[1, 1, 0] == planes[0, 2, 1] == planes[1, 0, 2] == 1.0
    offsets = HeartsAndTraps(size=3, observation="offsets")._observe(state)
    np.testing.assert_allclose(offsets, [-0.5, 0.5, 0.0, -0.5])
    directions = HeartsAndTraps(size=3, observation="directions")._observe(state)
    np.testing.assert_array_equal(directions, [1, 1, 0, 0, 0, 0, 0, 1])


def test_everything_begins_anywhere_but_apart():
    grid = HeartsAndTraps(size=2)
    keys = jax.random.split(jax.random.key(0), 2400)
    _, states = jax.jit(jax.vmap(grid.reset, (0, None)))(keys, params())
    cells = np.stack([states.agent, states.heart, states.trap], axis=1)
    places, counts = np.unique(cells, axis=0, return_counts=True)
    assert len(places) == 4 * 3 * 2 and all(len(set(place)) == 3 for place in places.tolist())
    assert counts.min() > 60 and counts.max() < 145  # 100 each, standard deviation 10


@pytest.mark.parametrize("observation", ["planes", "offsets", "directions"])
def test_steps_of_play_have_the_declared_shapes(observation):
    tasks = HeartTrapGrids(size=4, observation=observation, max_steps=3)
    grid, world = tasks.environment, tasks.sample(jax.random.key(0)).params.env_params
    obs, state = grid.reset(jax.random.key(0), world)
    after = jax.eval_shape(grid.step, jax.random.key(0), state, jnp.asarray(0), world)
    assert obs.shape == after[0].shape == grid.observation_shape
    assert obs.dtype == after[0].dtype == after[2].dtype == jnp.float32


def test_signs_are_as_asked():
    def signs(**settings) -> np.ndarray:
        tasks = HeartTrapGrids(**settings)
        return np.asarray(tasks.sample_set(jax.random.key(0), 200).params.env_params.hearts_pay)

    assert (signs() == 1.0).all() and (signs(hearts_pay=-1.0) == -1.0).all()
    drawn = signs(swapped=0.5)
    assert set(drawn.tolist()) == {-1.0, 1.0} and abs(np.mean(drawn)) < 0.3
