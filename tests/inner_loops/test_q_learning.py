"""Tabular Q-learning: a hand-worked update, the probes' exact values, the optimum of a grid world."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.exploration import EpsilonGreedy
from inner_loops.n_step import Step
from inner_loops.q_learning import QLearning, updated_table
from inner_loops.tasks.dark_rooms import DarkRooms
from inner_loops.tasks.grid_worlds import GridWorlds
from metalab.contracts import check_inner, check_outer
from outer_loops.fixed import Fixed
from tests.inner_loops.lives import check_one_life_in_three_ways
from tests.inner_loops.probes import PROBES, Probe, ProbeTasks, raised

AGENT = QLearning(
    exploration=EpsilonGreedy(end=0.5, steps=1.0),
    environment=Probe(index=True),
    num_envs=4,
    rollout_length=10,
    learning_rate=0.2,
    discount=0.5,
)


def test_one_update_by_hand():
    """Rate 1/2, discount 1/2, all values 4 but that of state 1, action 1, which is 8.

    Environment 0: state 0, action 0, reward 1, to state 1: error 1 + 8 / 2 - 4 = 1.
    Environment 1: the same action, reward 3, at an end: error 3 - 4 = -1. The mean of both is 0.
    Environment 2: state 0, action 1, reward 2, cut off in state 1: error 2 + 4 - 4 = 2.
    Environment 3: state 1, action 1, reward 0, to state 0: error 0 + 4 / 2 - 8 = -6.
    """
    table = jnp.full((2, 2), 4.0).at[1, 1].set(8.0)
    step = Step(
        obs=jnp.asarray([0, 0, 0, 1]),
        action=jnp.asarray([0, 0, 1, 1]),
        reward=jnp.asarray([1.0, 3.0, 2.0, 0.0]),
        terminated=jnp.asarray([False, True, False, False]),
        truncated=jnp.asarray([False, False, True, False]),
        next_obs=jnp.asarray([1, 1, 1, 0]),
    )
    found = jax.jit(updated_table)(table, step, 0.5, 0.5, jnp.ones(2, bool))
    np.testing.assert_allclose(found, [[4.0, 5.0], [4.0, 5.0]])


def test_an_action_that_is_not_allowed_has_no_value():
    table = jnp.asarray([[0.0, 0.0], [2.0, 8.0]])
    step = Step(*(jnp.asarray([x]) for x in (0, 0, 0.0, False, False, 1)))
    found = updated_table(table, step, 1.0, 0.5, jnp.asarray([True, False]))
    np.testing.assert_allclose(found[0], [1.0, 0.0])


@pytest.fixture(scope="module")
def lives():
    return raised(AGENT, 40)


@pytest.mark.parametrize("name", PROBES)
def test_the_probes_values_are_exact(lives, name):
    expected = PROBES[name].action_values(AGENT.discount)
    np.testing.assert_allclose(lives[name].table[: len(expected)], expected, atol=1e-3)


@pytest.mark.slow
def test_it_finds_the_best_policy_of_grid_worlds():
    """The exploring policy's exact return, in worlds of the smallest preset, against the exact optimum."""
    tasks = GridWorlds(preset="small")
    agent = QLearning(
        environment=tasks.environment,
        exploration=EpsilonGreedy(end=0.1, steps=20_000.0),
        learning_rate=0.1,
        discount=0.95,
        rollout_length=50,
    )

    def live(key):
        task_key, born_key, live_key = jax.random.split(key, 3)
        task = tasks.sample(task_key)
        state = agent.init(born_key, (), task)
        step = lambda state, key: (agent.step(key, (), state, None)[0], None)  # noqa: E731
        grown = jax.lax.scan(step, state, jax.random.split(live_key, 200))[0]
        best = tasks.environment.optimal_return(task.params.env_params)
        first, last = (agent.assess(key, (), one)["return"] for one in (state, grown))
        return first, last, best

    first, last, best = jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(0), 4))
    assert np.all(last <= best + 1e-4)
    assert np.mean(last) > 0.95 * np.mean(best) > 2 * np.mean(first)


@pytest.mark.slow
def test_vmapped_equals_single_and_jit_equals_no_jit():
    agent = dataclasses.replace(AGENT, rollout_length=3)
    tasks = ProbeTasks(name="advantage", index=True)
    check_one_life_in_three_ways(agent, tasks)


def test_it_keeps_the_contract():
    for world in (ProbeTasks(index=True, lifetime=3), GridWorlds(preset="small", lifetime=3)):
        agent = dataclasses.replace(AGENT, environment=world.environment)
        check_inner(agent, world)
        check_outer(Fixed(inner=agent, tasks=world, truncation=2, num_slots=2))
    assert AGENT.steps_per_update == 40


def test_observations_that_are_no_indices_are_refused_with_the_remedy():
    agent = dataclasses.replace(AGENT, environment=Probe())
    with pytest.raises(ValueError, match=r"needs state indices.*choose dqn"):
        agent.init(jax.random.key(0), (), ProbeTasks().sample(jax.random.key(0)))


def test_values_may_begin_spread_out():
    """Uniform from 0.25 to 0.75: mean 1/2, of 405 values within four standard errors."""
    tasks = DarkRooms()
    agent = dataclasses.replace(AGENT, environment=tasks.environment, initial_value=0.25, initial_spread=0.5)
    born = jax.jit(lambda key: agent.init(key, (), tasks.sample(key)).table)
    table = born(jax.random.key(0))
    assert table.min() >= 0.25 and table.max() < 0.75
    assert abs(float(table.mean()) - 0.5) < 4 * 0.5 / np.sqrt(12 * 405)


def test_a_rollout_is_on_record():
    """One environment: what it observed next is what it is seen to act on, but for the episodes' ends."""
    tasks = DarkRooms(horizon=6)
    agent = dataclasses.replace(AGENT, environment=tasks.environment, num_envs=1)
    task = tasks.sample(jax.random.key(1))

    def live(key):
        state = agent.init(key, (), task)
        return agent.step(key, (), state, None)

    state, out = jax.jit(live)(jax.random.key(0))
    record = out.record
    assert record.obs.shape == (11, 1) and record.action.shape == (10, 1)
    inside = ~np.asarray(record.done[:, 0])
    assert inside.sum() == 9 and not inside[5]
    np.testing.assert_array_equal(record.obs[1:][inside], record.next_obs[inside])
    np.testing.assert_array_equal(record.obs[-1], state.world.obs)
