"""Dark rooms: their optimum by hand, exact returns, walls, payment, and the split of goals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.environments.dark_room import DarkRoom, DarkRoomParams
from inner_loops.environments.rooms import centre, distances, next_cells
from inner_loops.tasks.dark_rooms import DarkRooms

ROOM = DarkRoom()
UP, RIGHT, DOWN, LEFT = 1, 2, 3, 4


def goal(cell: int) -> DarkRoomParams:
    return DarkRoomParams(jnp.asarray(cell, jnp.int32))


def play(room: Any, params: Any, actions: list[int], key: int = 0) -> list[tuple[Any, ...]]:
    """(obs, reward, terminated, truncated, final observation) of each step."""
    keys = jax.random.split(jax.random.key(key), len(actions) + 1)

    def body(state: Any, xs: Any) -> Any:
        obs, state, reward, terminated, truncated, info = room.step(xs[0], state, xs[1], params)
        return state, (obs, reward, terminated, truncated, info["final_observation"])

    def episode(params: Any, actions: Any) -> Any:
        state = room.reset(keys[0], params)[1]
        return jax.lax.scan(body, state, (keys[1:], actions))[1]

    steps = jax.jit(episode)(params, jnp.asarray(actions, jnp.int32))
    return list(zip(*map(np.asarray, steps), strict=True))


def shortest_policy(room: DarkRoom, cell: int) -> np.ndarray:
    """[cells, 5]: the first action that comes nearest to the goal, which at the goal is to stay."""
    after = np.asarray(distances(room.size, jnp.asarray(cell)))[next_cells(room.size)]
    return np.eye(5)[np.argmin(after, axis=1)]


def test_the_optimum_of_the_room_by_hand():
    """A goal at distance d >= 1 pays from step d to step 20: 21 - d; one in the centre from the first: 20.

    The mean distance of the 81 cells from the centre is 2 * 20 / 9 = 4.444 (|x| of -4..4: 20 / 9, twice), so
    that the mean optimum is 21 - 4.444 - 1 / 81 = 16.543.
    """
    best = jax.vmap(ROOM.optimal_return)(DarkRoomParams(jnp.arange(81)))
    assert best[centre(9)] == 20.0 and best[centre(9) + 1] == 20.0 and best[0] == 13.0
    np.testing.assert_allclose(best.mean(), 21 - 40 / 9 - 1 / 81, rtol=1e-6)
    assert round(float(best.mean()), 3) == 16.543


@pytest.mark.parametrize(
    "room",
    [ROOM, DarkRoom(size=5, start="random"), DarkRoom(size=4, horizon=3, pays="once", start="random")],
    ids=["always", "random start", "once"],
)
def test_the_shortest_way_is_the_optimum(room: DarkRoom):
    cells = range(room.size**2)
    policies = np.stack([shortest_policy(room, cell) for cell in cells])
    found = jax.jit(jax.vmap(room.exact_return))(DarkRoomParams(jnp.asarray(cells)), jnp.asarray(policies))
    best = jax.vmap(room.optimal_return)(DarkRoomParams(jnp.asarray(cells)))
    np.testing.assert_allclose(found, best, rtol=1e-5)


def test_the_exact_return_is_that_of_episodes():
    """The uniform policy's, against 4000 episodes: within four standard errors."""
    room, params = DarkRoom(size=3, horizon=6, start="random"), goal(2)
    keys = jax.random.split(jax.random.key(0), 4000)

    def episode(key: Any) -> Any:
        reset_key, act_key = jax.random.split(key)
        actions = jax.random.randint(act_key, (6,), 0, 5)
        state = room.reset(reset_key, params)[1]
        step = lambda state, action: room.step_env((), state, action, params)[1:3]  # noqa: E731
        return jnp.sum(jax.lax.scan(step, state, actions)[1])

    returns = np.asarray(jax.jit(jax.vmap(episode))(keys))
    exact = float(room.exact_return(params, jnp.full((9, 5), 0.2)))
    assert abs(returns.mean() - exact) < 4 * returns.std() / np.sqrt(4000)


def test_moves_walls_and_the_time_limit():
    """From the centre (4, 4) of 9 x 9 up to the wall, once more, and right until the time is over."""
    steps = play(ROOM, goal(4 + 9 * 0), [UP] * 5 + [RIGHT] * 15 + [LEFT])
    cells = [int(step[4]) for step in steps]
    assert cells[:7] == [31, 22, 13, 4, 4, 5, 6] and cells[19] == 8
    assert [float(step[1]) for step in steps[:6]] == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert [bool(step[3]) for step in steps] == [False] * 19 + [True, False]
    assert not any(step[2] for step in steps)
    assert steps[19][0] == centre(9) and cells[20] == centre(9) - 1  # a new episode from the centre


def test_the_hard_room_pays_once():
    room = DarkRoom(size=17, pays="once")
    above = goal(centre(17) - 17)
    steps = play(room, above, [UP, 0, DOWN, UP] + [0] * 16 + [UP])
    assert [float(step[1]) for step in steps] == [1.0] + [0.0] * 19 + [1.0]  # again in the next episode
    ended = play(DarkRoom(size=17, pays="once", ends_when_paid=True), above, [UP, UP, UP])
    assert [bool(step[2]) for step in ended] == [True, True, True]
    assert float(room.optimal_return(goal(0))) == 1.0 and float(room.optimal_return(goal(288))) == 1.0


def test_coordinates_are_row_and_column():
    room = DarkRoom(observation="coordinates")
    assert (room.num_states, room.observation_shape) == (None, (2,))
    steps = play(room, goal(0), [UP, RIGHT])
    np.testing.assert_array_equal(np.stack([step[0] for step in steps]), [[3.0, 4.0], [3.0, 5.0]])
    with pytest.raises(ValueError, match="observation='coordinates' has no exact return"):
        room.exact_return(goal(0), jnp.ones((81, 5)) / 5)


def test_random_starts_are_everywhere():
    room = DarkRoom(size=3, start="random")
    obs = jax.vmap(lambda key: room.reset(key, goal(0))[0])(jax.random.split(jax.random.key(0), 900))
    counts = np.bincount(obs, minlength=9)
    assert counts.min() > 60 and counts.max() < 140  # 100 each: four standard errors are 38


@given(
    size=st.integers(2, 9),
    share=st.floats(0.0, 1.0),
    split_seed=st.integers(0, 1000),
    lives=st.integers(1, 3),
)
def test_no_held_out_goal_is_trained_on(size: int, share: float, split_seed: int, lives: int):
    held_out = 1 + int(share * (size**2 - 2))
    parts = {
        part: DarkRooms(part=part, size=size, held_out=held_out, split_seed=split_seed)
        for part in ("train", "held_out", "all")
    }
    goals = {part: tasks.goals.tolist() for part, tasks in parts.items()}
    assert len(goals["held_out"]) == held_out == parts["held_out"].num_tasks
    assert not set(goals["train"]) & set(goals["held_out"])
    assert sorted(goals["train"] + goals["held_out"]) == sorted(goals["all"]) == list(range(size**2))


def test_sets_cover_every_goal_evenly_and_samples_stay_in_their_part():
    tasks = DarkRooms(part="held_out", held_out=5)
    drawn = tasks.sample_set(jax.random.key(0), 12).params.env_params.goal
    np.testing.assert_array_equal(drawn, [*tasks.goals, *tasks.goals, *tasks.goals[:2]])
    sampled = jax.jit(jax.vmap(tasks.sample))(jax.random.split(jax.random.key(1), 200)).params.env_params.goal
    assert set(np.asarray(sampled).tolist()) == set(tasks.goals.tolist())


def test_a_split_with_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="dark_rooms: held_out=81 of 81 tasks"):
        DarkRooms(held_out=81)


def test_vmapped_is_single():
    params = DarkRoomParams(jnp.arange(40, 45))
    step = jax.vmap(
        lambda p: ROOM.step(jax.random.key(0), ROOM.reset(jax.random.key(0), p)[1], jnp.asarray(2), p)
    )
    together = step(params)
    for index in range(5):
        one = DarkRoomParams(params.goal[index])
        alone = ROOM.step(jax.random.key(0), ROOM.reset(jax.random.key(0), one)[1], jnp.asarray(2), one)
        jax.tree.map(lambda a, b, i=index: np.testing.assert_array_equal(a[i], b), together, alone)
