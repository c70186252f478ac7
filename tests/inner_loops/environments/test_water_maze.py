"""Water mazes: headings, the wall, the platform, and the split of platforms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.environments.water_maze import WaterMaze, WaterMazeParams
from inner_loops.tasks.water_mazes import WaterMazes
from tests.inner_loops.environments.test_dark_room import play


def test_a_swim_by_hand():
    """Eleven steps east reach the wall at 1 after ten; the platform at (0.5, 0) pays from 0.35 to 0.65."""
    params = WaterMazeParams(jnp.asarray([0.5, 0.0]))
    steps = play(WaterMaze(horizon=12), params, [0] * 11 + [2, 4])
    places = np.stack([step[4] for step in steps])
    np.testing.assert_allclose(places[:11, 0], [*np.arange(1, 11) / 10, 1.0], atol=1e-6)
    np.testing.assert_allclose(places[:11, 1], 0.0, atol=1e-6)
    # North from the wall: (1, 0.1) is brought back to length 1.
    np.testing.assert_allclose(places[11], np.asarray([1.0, 0.1]) / np.sqrt(1.01), atol=1e-6)
    assert [float(step[1]) for step in steps[:8]] == [0, 0, 0, 1, 1, 1, 0, 0]
    assert [bool(step[3]) for step in steps] == [False] * 11 + [True, False]
    np.testing.assert_allclose(places[12], [-0.1, 0.0], atol=1e-6)  # west from the middle again


def test_two_opposite_headings_stay_on_the_platform():
    params = WaterMazeParams(jnp.asarray([0.2, 0.0]))
    steps = play(WaterMaze(), params, [0, 0, 0, 4, 0, 4, 0, 4])
    assert [float(step[1]) for step in steps] == [1.0] * 8


def test_the_optimum_by_hand():
    """The platform at 0.62 east is entered at 0.5: the fifth step pays. At 0.14 the first step does."""
    maze = WaterMaze(horizon=50)
    assert float(maze.optimal_return(WaterMazeParams(jnp.asarray([0.62, 0.0])))) == 46.0
    assert float(maze.optimal_return(WaterMazeParams(jnp.asarray([0.14, 0.0])))) == 50.0
    # Between two headings a step is 0.1 cos(22.5 degrees): eight make 0.74, nine 0.83; it begins at 0.8.
    between = 0.95 * jnp.asarray([jnp.cos(jnp.pi / 8), jnp.sin(jnp.pi / 8)])
    assert float(maze.optimal_return(WaterMazeParams(between))) == 42.0
    assert float(maze.optimal_return(WaterMazeParams(jnp.asarray([3.0, 0.0])))) == 0.0  # nobody gets there


def test_no_swim_is_better_than_the_optimum_and_one_is_as_good():
    """In mazes of four steps, all 8^4 swims: the best one's return is the optimum."""
    maze = WaterMaze(horizon=4)
    places = jnp.asarray(WaterMazes(part="all", platforms=40, held_out=1).places)
    swims = jnp.stack(jnp.meshgrid(*[jnp.arange(8)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)

    def swum(place: jax.Array, swim: jax.Array) -> jax.Array:
        params = WaterMazeParams(place)

        def step(state: Any, action: jax.Array) -> tuple[Any, jax.Array]:
            _, state, reward, *_ = maze.step_env((), state, action, params)
            return state, reward

        return jax.lax.scan(step, maze.reset_env((), params)[1], swim)[1].sum()

    best = jax.jit(jax.vmap(lambda place: jax.vmap(lambda swim: swum(place, swim))(swims).max()))(places)
    optimum = jax.vmap(lambda place: maze.optimal_return(WaterMazeParams(place)))(places)
    np.testing.assert_array_equal(best, optimum)
    assert {0.0, 1.0, 2.0} <= set(np.asarray(optimum).tolist())


@given(platforms=st.integers(2, 60), share=st.floats(0.0, 1.0), split_seed=st.integers(0, 1000))
def test_no_held_out_platform_is_trained_on(platforms: int, share: float, split_seed: int):
    held_out = 1 + int(share * (platforms - 2))
    train, held, everything = (
        WaterMazes(part=part, platforms=platforms, held_out=held_out, split_seed=split_seed)
        for part in ("train", "held_out", "all")
    )
    rows = [set(map(tuple, tasks.places.tolist())) for tasks in (train, held, everything)]
    assert not rows[0] & rows[1] and rows[0] | rows[1] == rows[2] and len(rows[2]) == platforms
    assert held.num_tasks == held_out and train.num_tasks == platforms - held_out


def test_platforms_are_uniform_on_the_disk():
    """Half of the area, so half of 1024 platforms, within radius sqrt(1/2): standard error 16."""
    places = WaterMazes(part="all").places
    radius = np.linalg.norm(places, axis=1)
    assert radius.max() <= 1.0 and abs((radius**2 < 0.5).sum() - 512) < 64
    drawn = WaterMazes(part="all").sample_set(jax.random.key(0), 3).params.env_params.platform
    np.testing.assert_array_equal(drawn, places[:3])
