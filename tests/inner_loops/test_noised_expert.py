"""A fading expert: the optimum without noise, uniform actions with all of it, refused in other worlds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.exploration import EpsilonGreedy
from inner_loops.noised_expert import NoisedExpert
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits
from inner_loops.tasks.dark_rooms import DarkRooms
from inner_loops.tasks.key_to_door_rooms import KeyToDoorRooms
from metalab.contracts import ContractError, check_inner
from metalab.lifetimes import unroll


def expert(tasks, start: float = 1.0, end: float = 0.0, steps: float = 1.0) -> NoisedExpert:
    noise = EpsilonGreedy(start=start, end=end, steps=steps)
    horizon = tasks.environment.horizon
    return NoisedExpert(environment=tasks.environment, rollout_length=horizon, exploration=noise)


@pytest.mark.parametrize("tasks", [DarkRooms(), KeyToDoorRooms(start="centre", ends_at_door=False)])
def test_without_noise_it_reaches_the_optimum(tasks):
    agent = expert(tasks, start=0.0)
    drawn = tasks.sample_set(jax.random.key(0), 5)

    def episode(task):
        return agent.step(jax.random.key(0), (), agent.init(jax.random.key(1), (), task), None)[1]

    found = jax.jit(jax.vmap(episode))(drawn).record.reward.sum(axis=(1, 2))
    np.testing.assert_allclose(found, jax.vmap(tasks.environment.optimal_return)(drawn.params.env_params))


def test_the_noise_fades():
    """Of actions at full noise one in five is each action; after the schedule none is random."""
    tasks = DarkRooms(horizon=50)
    agent = expert(tasks, steps=100.0)
    task = tasks.sample(jax.random.key(0))

    def life(key):
        return unroll(agent, key, (), agent.init(key, (), task), 3)[1].record

    record = jax.jit(jax.vmap(life))(jax.random.split(jax.random.key(1), 40))
    shares = np.bincount(np.asarray(record.action[:, 0]).reshape(-1), minlength=5) / 2000
    np.testing.assert_allclose(shares, 0.2, atol=4 * np.sqrt(0.16 / 2000))
    best = jnp.asarray(tasks.environment.optimal_return(task.params.env_params))
    returns = np.asarray(record.reward.sum(axis=(2, 3))).mean(axis=0)
    assert returns[0] < returns[1] < returns[2] == best


def test_it_keeps_the_contract():
    tasks = KeyToDoorRooms(sees_key=True)
    check_inner(expert(tasks), tasks)


def test_a_world_that_does_not_know_its_best_action_is_refused():
    tasks = BernoulliBandits()
    with pytest.raises(ContractError, match="noised_expert needs a world that knows its best action"):
        check_inner(NoisedExpert(environment=tasks.environment), tasks)
