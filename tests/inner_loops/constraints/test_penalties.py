"""The penalty replay and trials, worked by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.constraints.penalties import count_penalties, mean_penalty, no_penalties, sample_penalty
from inner_loops.constraints.trial import overshoot, tried
from inner_loops.environments.wrappers.costs import Costs
from inner_loops.tasks.control_tasks import PendulumTasks
from inner_loops.tasks.wrapped_tasks import WrappedTasks

YES = jnp.asarray(True)
# Two environments, six steps. The first ends after steps 2 and 5, the second after step 4.
COST = jnp.asarray([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 0]], jnp.float32)[..., None]
DONE = jnp.asarray([[0, 0], [1, 0], [0, 0], [0, 1], [1, 0], [0, 0]], bool)


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_an_episode_s_mean_cost_is_known_when_it_ends_however_rollouts_cut_it(length):
    """The first: (1 + 1) / 2, then (0 + 0 + 1) / 3; the second: (0 + 0 + 1 + 1) / 4."""
    memory = no_penalties(2, 2, 1)
    for start in range(0, 6, length):
        part = slice(start, start + length)
        memory = count_penalties(memory, COST[part], DONE[part], YES)
    np.testing.assert_allclose(memory.recent[..., 0], [[1 / 3, 1 / 2], [1.0, 0.0]], rtol=1e-6)
    np.testing.assert_array_equal(memory.known, [[True, True], [True, False]])
    penalty, known = mean_penalty(memory)
    np.testing.assert_allclose(penalty, [(1 / 3 + 1 / 2 + 1.0) / 3], rtol=1e-6)
    assert bool(known)


def test_what_does_not_count_is_forgotten():
    """Four steps that do not count, then two: the first environment's episode (1 + 0) is one step long."""
    memory = count_penalties(no_penalties(1, 2, 1), COST[:4], DONE[:4], ~YES)
    assert not bool(mean_penalty(memory)[1])
    memory = count_penalties(memory, COST[4:], DONE[4:], YES)
    penalty, known = mean_penalty(memory)
    np.testing.assert_allclose(penalty, [1.0])
    assert bool(known)


def test_draws_are_of_known_episodes_alone():
    nothing = no_penalties(2, 2, 1)
    assert not bool(sample_penalty(jax.random.key(0), nothing, 3)[1])
    memory = count_penalties(nothing, COST, DONE, YES)
    draws = jax.vmap(lambda key: sample_penalty(key, memory, 1)[0])(jax.random.split(jax.random.key(1), 300))
    assert {round(float(one), 4) for one in draws[:, 0]} == {0.3333, 0.5, 1.0}
    many, _ = sample_penalty(jax.random.key(2), memory, 3000)
    np.testing.assert_allclose(many, mean_penalty(memory)[0], atol=0.03)


@pytest.mark.slow
def test_a_trial_is_whole_episodes_of_the_policy():
    """Torque 2 at every step costs 1 each; an action within the threshold nothing. Twice, to see the ends."""
    wrapper = Costs(measures=("action.0", "action.0"), thresholds=(1.5, 0.5), indicator=True)
    tasks = WrappedTasks(tasks=PendulumTasks(max_steps=5), wrappers=(wrapper,))
    params = tasks.sample(jax.random.key(0)).params.env_params

    def policy(obs: jax.Array) -> jax.Array:
        return jnp.where(obs[:, :1] > 0.0, 2.0, 1.0)  # more torque in the upper half

    trial = tried(tasks.environment, jax.random.key(1), params, policy, 8, 9)
    again = tried(tasks.environment, jax.random.key(1), params, policy, 8, 5)
    np.testing.assert_allclose(trial.score, again.score, rtol=1e-6)  # what follows an end does not count
    np.testing.assert_allclose(trial.cost, again.cost, rtol=1e-6)
    assert 0.0 < float(trial.cost[0]) < float(trial.cost[1]) == 1.0
    assert 0.0 < float(trial.score) < 5.0


def test_the_overshoot_is_what_exceeds_the_limits():
    found = overshoot(jnp.asarray([0.3, 0.05, 0.6]), jnp.asarray([0.1, 0.1, 0.5]))
    np.testing.assert_allclose(found, 0.2 + 0.1, rtol=1e-6)
