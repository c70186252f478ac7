"""The numbers of classical agents as meta-parameters: what can be named, and derivatives in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.d4pg import D4PG
from inner_loops.dqn import DQN
from inner_loops.experience import file_steps
from inner_loops.exploration import EpsilonGreedy
from inner_loops.n_step import Step
from inner_loops.networks.q_network import StreamNetwork
from inner_loops.q_learning import QLearning, updated_table
from metalab.contracts import ContractError, check_inner, check_outer
from metalab.exposure import expose, leaf_of
from metalab.optimizers import Sgd
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.meta_gradient import MetaGradient
from outer_loops.population_based import PopulationBased
from tests.inner_loops.probes import Probe, ProbeTasks

SIZES: dict[str, Any] = {"num_envs": 2, "rollout_length": 4}
REPLAY: dict[str, Any] = {"gradient_steps": 3, "batch_size": 8, "capacity": 16, "warmup": 1, **SIZES}
CRITIC: dict[str, Any] = {
    "environment": Probe(continuous=True),
    "policy_optimizer": Sgd(learning_rate=0.3),
    "critic_optimizer": Sgd(learning_rate=0.2),
    "policy_sizes": (4,),
    "critic_sizes": (4,),
    "atoms": 5,
    "v_min": -2.0,
    "v_max": 2.5,
    "n_step": 2,
    "discount": 0.7,
    **REPLAY,
}
OF_CRITIC = ("discount", "target_rate", "policy_optimizer.learning_rate", "critic_optimizer.learning_rate")
AGENTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "dqn": (
        DQN(
            environment=Probe(),
            network=StreamNetwork(hidden_sizes=(4,), stream_sizes=()),
            optimizer=Sgd(learning_rate=0.2),
            exploration=EpsilonGreedy(end=0.5),
            n_step=2,
            discount=0.7,
            huber=0.5,
            target_rate=0.3,
            **REPLAY,
        ),
        ("discount", "huber", "target_rate", "optimizer.learning_rate"),
    ),
    "d4pg": (D4PG(**CRITIC), (*OF_CRITIC, "v_min", "v_max")),
    "ddpg": (D4PG(critic="scalar", **CRITIC), OF_CRITIC),
    "q_learning": (
        QLearning(environment=Probe(index=True), learning_rate=0.3, discount=0.7, initial_value=0.5, **SIZES),
        ("discount", "learning_rate", "initial_value"),
    ),
}


def exposed(name: str) -> Any:
    agent, names = AGENTS[name]
    return expose(agent, [leaf_of(agent, number) for number in names])


def tasks_of(agent: Any) -> ProbeTasks:
    world = agent.environment
    return ProbeTasks(name="discounting", continuous=world.continuous, index=world.index, lifetime=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_outer_loops_that_need_no_gradient_can_tune_it(name):
    learner = exposed(name)
    tasks = tasks_of(learner)
    check_inner(learner, tasks)
    check_outer(PopulationBased(inner=learner, tasks=tasks, population=4, truncation=2))
    check_outer(EvolutionStrategy(inner=learner, tasks=tasks, population=4, max_lifetime=2))
    with pytest.raises(ContractError, match="has no differentiable outer loss"):
        check_outer(MetaGradient(inner=learner, tasks=tasks, num_slots=2, truncation=2))


@pytest.mark.parametrize("name", AGENTS)
def test_a_life_under_exposed_numbers_is_that_of_the_configured_agent(name):
    learner, (agent, _) = exposed(name), AGENTS[name]
    task = tasks_of(agent).sample(jax.random.key(1))

    @jax.jit
    def lived(key: jax.Array) -> tuple[Any, Any]:
        meta = learner.init_meta(key)
        pair = ((learner, meta), (agent, ()))
        return tuple(one.step(key, meta, one.init(key, meta, task), None)[0] for one, meta in pair)  # type: ignore

    for one, other in zip(*map(jax.tree.leaves, lived(jax.random.key(2))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def a_record(agent: Any) -> Step:
    """Eight steps of two environments with an end and a cut, drawn by chance."""
    keys = jax.random.split(jax.random.key(3), 4)
    shape = (8, 2)
    obs = agent.environment.observations[jax.random.bernoulli(keys[0], shape=(9, 2)).astype(int)]
    action = jax.random.bernoulli(keys[1], shape=shape).astype(jnp.int32)
    if agent.environment.continuous:
        action = jax.random.uniform(keys[1], (*shape, 1), minval=-1.0)
    never = jnp.zeros(shape, bool)
    reward = jax.random.normal(keys[2], shape)
    return Step(obs[:-1], action, reward, never.at[2, 0].set(True), never.at[3, 1].set(True), obs[1:])


def learned(agent: Any, key: jax.Array) -> Any:
    """What an agent has learned of the record: a table, or networks with their targets."""
    steps = a_record(agent)
    state = agent.init(key, (), tasks_of(agent).sample(key))
    if isinstance(agent, QLearning):
        learn = lambda table, step: (  # noqa: E731
            updated_table(
                table,
                step,
                agent.learning_rate,
                agent.discount,
                agent.environment.action_mask(state.world.params),
            ),
            None,
        )
        return jax.lax.scan(learn, state.table, steps)[0]
    experience = file_steps(state.experience, steps, agent.discount)
    # Flax makes parameters of float32 whatever jax's default is.
    double = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, state.learner)
    learner, *_ = agent._learn(key, state._replace(experience=experience, learner=double))
    return learner.params, learner.target


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_what_is_learned_is_differentiable_in_every_number(name):
    """Against central differences in float64, at one random direction of all that was learned.

    The record and the rows that are drawn do not depend on the numbers.
    """
    with jax.enable_x64(True):
        learner = exposed(name)
        meta = learner.init_meta(jax.random.key(0))

        def shadow(meta: dict[str, jax.Array]) -> jax.Array:
            found = jax.tree.leaves(learned(learner.learner_at(meta), jax.random.key(4)))
            keys = jax.random.split(jax.random.key(5), len(found))
            return sum(
                jnp.sum(leaf * jax.random.normal(key, leaf.shape))
                for leaf, key in zip(found, keys, strict=True)
            )  # type: ignore

        value, gradient = jax.jit(shadow), jax.jit(jax.grad(shadow))(meta)
        for number in meta:
            up, down = (value({**meta, number: meta[number] + step}) for step in (1e-6, -1e-6))
            numeric = float(up - down) / 2e-6
            assert abs(numeric) > 1e-6, number
            assert float(gradient[number]) == pytest.approx(numeric, rel=1e-5), number
