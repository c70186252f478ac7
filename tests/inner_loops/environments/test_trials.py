"""Trials: what is seen and paid over a trial's episodes, the draw of worlds, judgement on other ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.dark_room import DarkRoomParams
from inner_loops.environments.trials import TrialParams, Trials
from inner_loops.recurrent_ppo import RecurrentPPO
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits
from inner_loops.tasks.dark_rooms import DarkRooms
from inner_loops.tasks.trials import TrialTasks
from metalab.contracts import check_inner
from tests.inner_loops.environments.test_dark_room import UP, play
from tests.inner_loops.lives import SMALL_PPO

ROOMS = DarkRooms(size=3, horizon=2, held_out=2)
TRIALS = Trials(environment=ROOMS.environment, episodes=3)
ABOVE = DarkRoomParams(jnp.asarray([1]))  # one world, its goal above the centre of 3 x 3


def test_a_trial_by_hand():
    """Three episodes of two steps: up to the goal, paid 1, and up again: 2 an episode, 6 in all."""
    steps = play(TRIALS, TrialParams(ABOVE, ABOVE), [UP] * 7)
    seen = np.stack([step[4] for step in steps])
    assert seen.shape == (7, 9 + 5 + 2)
    np.testing.assert_array_equal(seen[:, :9].argmax(1), [1, 4, 1, 4, 1, 4, 1])  # the centre between episodes
    np.testing.assert_array_equal(seen[:, 9:14].argmax(1), UP)
    np.testing.assert_array_equal(seen[:, 14], 1.0)
    np.testing.assert_array_equal(seen[:, 15], [0, 1, 0, 1, 0, 1, 0])
    assert [bool(step[2]) for step in steps] == [False] * 5 + [True, False]
    np.testing.assert_array_equal(
        steps[5][0], [0, 0, 0, 0, 1, 0, 0, 0, 0, *[0] * 6, 1]
    )  # as a newborn sees it


def test_a_cell_is_seen_as_its_row_and_its_column():
    """Cell 1 of 3 x 3 is row 0, column 1, and the centre row 1, column 1; the rest is as without factors."""
    whole, apart = (
        Trials(environment=ROOMS.environment, episodes=3, factors=factors) for factors in (None, (3, 3))
    )
    assert apart.observation_shape == (3 + 3 + 5 + 2,)
    one, other = (
        np.stack([step[4] for step in play(trials, TrialParams(ABOVE, ABOVE), [UP] * 2)])
        for trials in (whole, apart)
    )
    np.testing.assert_array_equal(other[:, :6], [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(other[:, 6:], one[:, 9:])


def test_factors_that_do_not_make_up_the_cells_are_refused():
    with pytest.raises(ValueError, match=r"factors=\[3, 4\] make 12 states, and the world has 9"):
        TrialTasks(tasks=ROOMS, factors=(3, 4))


def test_the_score_of_a_trial_is_the_mean_return_of_its_episodes():
    params = TrialParams(ABOVE, ABOVE)
    state = TRIALS.reset(jax.random.key(0), params)[1]

    def step(state: Any, key: Any) -> tuple[Any, Any]:
        _, state, _, _, _, info = TRIALS.step(key, state, jnp.asarray(UP), params)
        return state, info

    _, info = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 6))
    np.testing.assert_allclose(info["score"].sum(), 2.0, rtol=1e-6)
    np.testing.assert_array_equal(info["episode"], [0, 0, 1, 1, 2, 2])
    assert float(TRIALS.optimal_return(params)) == 2.0


def test_every_trial_draws_a_world_and_stays_in_it():
    tasks = TrialTasks(tasks=ROOMS, episodes=2)
    params = tasks.sample(jax.random.key(0)).params.env_params
    np.testing.assert_array_equal(params.worlds.goal, ROOMS.goals)

    def worlds(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 9)
        state = tasks.environment.reset(keys[0], params)[1]

        def step(state: Any, key: Any) -> tuple[Any, Any]:
            state = tasks.environment.step(key, state, jnp.asarray(0), params)[1]
            return state, state.world

        return jax.lax.scan(step, state, keys[1:])[1]

    drawn = np.asarray(jax.jit(jax.vmap(worlds))(jax.random.split(jax.random.key(1), 300)))
    assert np.all(drawn[:, :3] == drawn[:, :1]) and np.all(drawn[:, 3:7] == drawn[:, 3:4])
    counts = np.bincount(drawn[:, 3], minlength=7)
    assert counts.min() > 17 and counts.max() < 69  # 43 each: four standard errors are 24


def test_an_agent_is_judged_on_the_other_worlds():
    """A newborn is paid by chance in the rooms that are held out, and never where the goal is nowhere."""
    tasks = TrialTasks(tasks=ROOMS, judged_on=dataclasses.replace(ROOMS, part="held_out"), episodes=2)
    agent = RecurrentPPO(**{**SMALL_PPO, "num_envs": 64, "minibatches": 2}, environment=tasks.environment)
    check_inner(agent, tasks)
    task = tasks.sample(jax.random.key(0))

    def born(key: jax.Array, judged_on: jax.Array) -> dict[str, jax.Array]:
        worlds = task.params.env_params._replace(judged_on=DarkRoomParams(judged_on))
        own = task._replace(params=task.params._replace(env_params=worlds))
        return agent.assess(key, (), agent.init(key, (), own))

    assess = jax.jit(born)
    found = assess(jax.random.key(1), task.params.env_params.judged_on.goal)
    assert set(found) == {"return", "first_return"}
    assert 0.0 < float(found["return"]) < 2.0 and 0.0 < float(found["first_return"]) < 2.0
    assert float(assess(jax.random.key(1), jnp.asarray([99, 99]))["return"]) == 0.0


def test_tasks_without_an_end_and_other_worlds_are_refused():
    with pytest.raises(ValueError, match="trials: BernoulliBandits has no end of tasks"):
        TrialTasks(tasks=BernoulliBandits())
    with pytest.raises(ValueError, match="trials: judged_on has another world"):
        TrialTasks(tasks=ROOMS, judged_on=DarkRooms())
