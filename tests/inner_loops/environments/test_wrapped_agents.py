"""Agents live in wrapped worlds as in any other: the contract with every agent, and what they learn there."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import NetworkCritic
from inner_loops.environments.wrappers.base import WrappedParams
from inner_loops.environments.wrappers.costs import Costs
from inner_loops.environments.wrappers.episode_statistics import EpisodeStatistics
from inner_loops.environments.wrappers.permutations import ActionPermutation, ObservationPermutation
from inner_loops.environments.wrappers.projections import ActionProjection, ObservationProjection
from inner_loops.environments.wrappers.sticky_actions import StickyActions
from inner_loops.networks.mlp import MlpNetwork
from inner_loops.networks.policy import TowerNetwork
from inner_loops.ppo import PPO
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from inner_loops.tasks.wrapped_tasks import WrappedTasks
from inner_loops.update_rules.a2c import A2C
from metalab.components import as_arrays
from metalab.contracts import check_inner
from metalab.optimizers import Adam
from tests.inner_loops.probes import ProbeTasks

DISCRETE = (
    ObservationPermutation(),
    ActionPermutation(),
    StickyActions(probability=0.1),
    Costs(measures=("action.1", "observation.0"), thresholds=(0.5, 1.0)),
    ObservationProjection(size=6),
    EpisodeStatistics(),
)
CONTINUOUS = (
    ObservationPermutation(),
    ActionProjection(size=3),
    StickyActions(probability=0.1),
    Costs(measures=("action", "action.2"), thresholds=(0.5, 0.1)),
    ObservationProjection(size=6),
    EpisodeStatistics(),
)


def ppo(tasks: WrappedTasks, **changes: Any) -> PPO:
    settings = {
        "network": TowerNetwork(hidden_sizes=(8,)),
        "optimizer": Adam(learning_rate=0.01, eps=1e-5, max_grad_norm=0.5),
        "num_envs": 8,
        "rollout_length": 16,
        "entropy": 0.0,
    }
    return PPO(environment=tasks.environment, **(settings | changes))


def actor_critic(tasks: WrappedTasks) -> ActorCritic:
    return ActorCritic(
        rule=A2C(),
        network=MlpNetwork(hidden_sizes=(8,)),
        optimizer=Adam(learning_rate=0.03),
        critic=NetworkCritic(network=MlpNetwork(hidden_sizes=(8,)), optimizer=Adam(learning_rate=0.03)),
        environment=tasks.environment,
        num_envs=8,
        rollout_length=16,
    )


AGENTS = {
    "ppo": ppo,
    "ppo with a reset pool": functools.partial(ppo, reset_pool=2),
    "actor_critic": actor_critic,
}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_contract_is_kept_in_discrete_worlds(agent):
    tasks = WrappedTasks(tasks=GymnaxTasks(name="CartPole-v1"), wrappers=DISCRETE)
    check_inner(AGENTS[agent](tasks), tasks)


@pytest.mark.parametrize("agent", ["ppo", "ppo with a reset pool"])
def test_the_contract_is_kept_in_continuous_worlds(agent):
    tasks = WrappedTasks(tasks=GymnaxTasks(name="Pendulum-v1"), wrappers=CONTINUOUS)
    check_inner(AGENTS[agent](tasks), tasks)


def test_a_wrapped_gymnax_world_is_cut_off_where_it_was():
    """MountainCar ends after 200 steps of doing nothing; what is seen last is the final observation."""
    tasks = GymnaxTasks(name="MountainCar-v0")
    wrapped = WrappedTasks(tasks=tasks, wrappers=(ObservationPermutation(), EpisodeStatistics()))
    environment = wrapped.environment

    @jax.jit
    def walk(order):
        params = WrappedParams(WrappedParams(tasks.environment.default_params(), order), ())

        def body(state, key):
            obs, state, *rest = environment.step(key, state, jnp.asarray(1, jnp.int32), params)
            return state, (obs, *rest)

        keys = jax.random.split(jax.random.key(1), 201)
        return jax.lax.scan(body, environment.reset(jax.random.key(0), params)[1], keys)[1]

    plain, turned = (walk(jnp.asarray(order, jnp.int32)) for order in ((0, 1), (1, 0)))
    obs, _, terminated, truncated, info = turned
    assert not np.any(terminated)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [199])
    np.testing.assert_array_equal(obs, plain[0][:, ::-1])
    np.testing.assert_array_equal(info["final_observation"], plain[4]["final_observation"][:, ::-1])
    assert np.any(obs[199] != info["final_observation"][199])
    np.testing.assert_array_equal(info["episode_length"][jnp.asarray([0, 199, 200])], [1, 200, 1])
    np.testing.assert_array_equal(info["episode_score"][jnp.asarray([0, 199, 200])], [-1.0, -200.0, -1.0])


@pytest.mark.slow
@pytest.mark.parametrize("agent", [pytest.param("ppo", marks=pytest.mark.slow), "actor_critic"])
def test_agents_find_the_actions_that_permuted_and_projected_observations_ask_for(agent):
    """Which of two actions pays depends on the state; neither order nor place of anything is known."""
    wrappers = (ActionPermutation(), ObservationPermutation(), ObservationProjection(size=4))
    tasks = WrappedTasks(tasks=ProbeTasks(name="advantage"), wrappers=wrappers)
    assert min(scores(AGENTS[agent](tasks), tasks, updates=60)) > 0.7  # of 1; blind choice has 0


@pytest.mark.slow
def test_ppo_finds_continuous_actions_through_a_random_matrix():
    """The best action is -0.5 or 0.5, and its distance from it is paid for; the agent has three entries."""
    tasks = WrappedTasks(
        tasks=ProbeTasks(name="advantage", continuous=True), wrappers=(ActionProjection(size=3),)
    )
    # Always doing nothing has 1 - 0.5**2 = 0.75 in expectation.
    assert np.mean(scores(ppo(tasks), tasks, updates=150)) > 0.85


def scores(agent: Any, tasks: WrappedTasks, updates: int) -> np.ndarray:
    """[4] mean scores of the last episodes of agents in worlds of their own."""
    agent = as_arrays(agent)

    def live(key: jax.Array) -> jax.Array:
        task_key, born_key, live_key = jax.random.split(key, 3)
        state = agent.init(born_key, (), tasks.sample(task_key))

        def body(state, key):
            state = agent.step(key, (), state, None)[0]
            return state, state.episodes.last.mean()

        return jax.lax.scan(body, state, jax.random.split(live_key, updates))[1][-10:].mean()

    return np.asarray(jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(0), 4)))
