"""A life in context: what the agent is told and when, what is summed, and who may move its parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.bandits import UCB1, Uniform
from inner_loops.agents.base import InContextAgent, Percept, Sizes
from inner_loops.agents.meta_rnn import MetaRNN
from inner_loops.agents.symla import SymLA
from inner_loops.in_context import InContext, LifeState
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.tasks.heart_trap_grids import HeartTrapGrids
from metalab.components import as_arrays, component, static
from metalab.contracts import ContractError, check_inner, check_outer
from metalab.lifetimes import unroll
from metalab.protocols import Evaluation, StepOut
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.fixed import Fixed
from outer_loops.meta_gradient import MetaGradient

BANDITS = BernoulliBandits(arms=(2, 4))
SMALL = SymLA(hidden_size=4, message_size=2, ticks=1)


class Diary(NamedTuple):
    """All that was heard, and how much."""

    heard: Percept
    steps: jax.Array


@component
class Scribe:
    """Writes down what it hears and acts at random."""

    room: int = static(8, doc="steps that there is room for")

    def init_params(self, key: jax.Array, sizes: Sizes) -> jax.Array:
        return jnp.zeros(())

    def init_memory(self, key: jax.Array, params: Any, sizes: Sizes) -> Diary:
        nothing = Percept(
            obs=jnp.zeros(sizes.observations),
            action=jnp.zeros(sizes.actions),
            reward=jnp.zeros(()),
            done=jnp.zeros(()),
            obs_mask=jnp.zeros(sizes.observations, bool),
            action_mask=jnp.zeros(sizes.actions, bool),
        )
        pages = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.room, *leaf.shape)), nothing)
        return Diary(pages, jnp.zeros((), jnp.int32))

    def step(self, params: Any, memory: Diary, percept: Percept) -> tuple[Diary, jax.Array]:
        heard = jax.tree.map(lambda page, now: page.at[memory.steps].set(now), memory.heard, percept)
        return Diary(heard, memory.steps + 1), jnp.zeros_like(percept.action)


def learner(agent: InContextAgent, tasks: Any, **changes: Any) -> InContext:
    return as_arrays(InContext(agent=agent, environment=tasks.environment, rollout_length=4, **changes))


@functools.partial(jax.jit, static_argnums=2)
def live(inner: InContext, tasks: Any, updates: int, seed: int = 0) -> tuple[LifeState, StepOut, Evaluation]:
    """A life of ``updates`` updates, what came of each, and the judgement of them all."""
    keys = jax.random.split(jax.random.key(seed), 4)
    meta = inner.init_meta(keys[0])
    state = inner.init(keys[1], meta, tasks.sample(keys[2]))
    state, outs = unroll(inner, keys[3], meta, state, updates)
    state, evaluation = inner.evaluate(keys[0], meta, state, outs, None)
    return state, outs, evaluation


@pytest.mark.parametrize("tasks", [BANDITS, HeartTrapGrids(size=2, observation="offsets", max_steps=3)])
def test_an_action_is_heard_with_its_own_reward_and_nothing_is_forgotten_at_an_episodes_end(tasks):
    state, outs, _ = live(learner(Scribe(), tasks), tasks, 2)
    record = jax.tree.map(np.asarray, outs.record)
    heard: Percept = jax.tree.map(np.asarray, state.memory.heard)
    action, reward = record.action.reshape(-1), record.reward.reshape(-1)
    done = (record.terminated | record.truncated).reshape(-1)
    assert int(state.memory.steps) == 8 and done.sum() > 0  # a memory that goes on across episodes
    # at birth there is nothing before; then always what the step before it did, over updates and episodes
    assert not heard.action[0].any() and heard.reward[0] == 0.0 and heard.done[0] == 0.0
    np.testing.assert_array_equal(heard.action[1:], np.eye(tasks.environment.num_actions)[action[:-1]])
    np.testing.assert_array_equal(heard.reward[1:], reward[:-1])
    np.testing.assert_array_equal(heard.done[1:], done[:-1])
    np.testing.assert_array_equal(heard.obs, record.obs[:, :-1, 0].reshape(8, -1))
    assert len(set(action.tolist())) > 1 and len(set(reward.tolist())) > 1


def test_sums_over_a_life_by_its_record():
    inner = learner(Uniform(), BANDITS)
    state, outs, evaluation = live(inner, BANDITS, 3)
    chances = np.asarray(state.env_params.probability)
    pulled = np.asarray(outs.record.action).reshape(-1)
    regret = (chances.max() - chances[pulled]).sum()
    assert int(state.life.steps) == 12
    np.testing.assert_allclose(state.life.counted["regret"], regret, rtol=1e-5)
    np.testing.assert_allclose(evaluation.metrics["regret"], regret, rtol=1e-5)
    np.testing.assert_allclose(evaluation.score, chances[pulled].mean(), rtol=1e-5)
    np.testing.assert_allclose(evaluation.metrics["reward"], outs.record.reward.mean(), rtol=1e-5)
    assessed = inner.assess(jax.random.key(0), (), state)
    np.testing.assert_allclose(assessed["return"], evaluation.score, rtol=1e-6)
    np.testing.assert_allclose(assessed["regret"], regret, rtol=1e-5)
    recent = dataclasses.replace(inner, score="stretch").assess(jax.random.key(0), (), state)
    np.testing.assert_allclose(recent["return"], chances[pulled[-4:]].mean(), rtol=1e-5)
    assert evaluation.loss is None and not evaluation.broken


def test_a_stretch_is_judged_by_the_steps_that_were_lived():
    """An update beyond the end of life reports zeros, which are no steps."""
    inner = learner(Uniform(), BANDITS, score="stretch")

    @jax.jit
    def lived(remaining: jax.Array) -> tuple[Evaluation, StepOut]:
        key = jax.random.key(0)
        state = inner.init(key, (), BANDITS.sample(key))
        state, _ = inner.step(key, (), state, None)
        state, outs = unroll(inner, key, (), state, 3, remaining=remaining)
        return inner.evaluate(key, (), state, outs, None)[1], outs

    evaluation, outs = lived(jnp.asarray(2))
    np.testing.assert_allclose(evaluation.score, np.asarray(outs.record.score)[:2].mean(), rtol=1e-5)


def test_padded_arms_are_never_pulled():
    _, outs, _ = jax.vmap(lambda seed: live(learner(Uniform(), BANDITS), BANDITS, 8, seed))(jnp.arange(20))
    arms = np.asarray(outs.record.action_mask)[:, 0].sum(axis=-1)
    assert set(arms.tolist()) == {2, 4}
    pulled = np.asarray(outs.record.action).reshape(20, -1)
    np.testing.assert_array_equal(pulled.max(axis=1), arms - 1)


@pytest.mark.slow
def test_lives_side_by_side_are_those_alone():
    inner = learner(SMALL, BANDITS)
    together = jax.vmap(lambda seed: live(inner, BANDITS, 2, seed))(jnp.arange(2))
    for seed in range(2):
        alone = live(inner, BANDITS, 2, seed)
        jax.tree.map(
            lambda one, other, at=seed: np.testing.assert_allclose(one, other[at], rtol=1e-5, atol=1e-6),
            alone,
            together,
        )


def test_parameters_that_are_no_numbers_are_a_life_that_broke_down():
    inner = learner(SMALL, BANDITS)
    key = jax.random.key(0)

    @jax.jit
    def judged(meta: Any) -> Evaluation:
        state = inner.init(key, meta, BANDITS.sample(key))
        state, outs = unroll(inner, key, meta, state, 1)
        return inner.evaluate(key, meta, state, outs, None)[1]

    meta = inner.init_meta(key)
    assert not judged(meta).broken
    evaluation = judged(jax.tree.map(lambda leaf: leaf * jnp.nan, meta))
    assert evaluation.broken and np.isnan(evaluation.score)


def test_a_state_index_is_heard_one_hot():
    tasks = DelayedChains(lengths=(2,), max_length=2)
    state, outs, _ = live(learner(Scribe(), tasks), tasks, 1)
    index = np.asarray(outs.record.obs).reshape(-1)[:-1]
    np.testing.assert_array_equal(np.asarray(state.memory.heard.obs)[:4], np.eye(6)[index])


def test_worlds_of_other_sizes_than_those_of_the_parameters():
    trained, larger = BernoulliBandits(arms=(2,)), BernoulliBandits(arms=(5,))

    def moved(agent: InContextAgent) -> Any:
        meta = learner(agent, trained).init_meta(jax.random.key(0))
        inner = learner(agent, larger)
        state = inner.init(jax.random.key(0), meta, larger.sample(jax.random.key(0)))
        return jax.eval_shape(inner.step, jax.random.key(0), meta, state, None)

    moved(SMALL)
    moved(MetaRNN(hidden_size=4, max_actions=5))
    with pytest.raises(ValueError, match="and this world has 1 and 5: set max_observations and max_actions"):
        moved(MetaRNN(hidden_size=4))


def evolved(agent: InContextAgent, **changes: Any) -> EvolutionStrategy:
    settings = {"population": 4, "max_lifetime": 2, "num_tasks": 2, **changes}
    tasks = dataclasses.replace(BANDITS, lifetime=2)
    return as_arrays(EvolutionStrategy(inner=learner(agent, tasks), tasks=tasks, **settings))


@pytest.mark.parametrize("agent", [SMALL, MetaRNN(hidden_size=4, core="gru")], ids=["symla", "meta_rnn"])
def test_agents_keep_the_contract_under_evolution(agent):
    check_outer(evolved(agent, segments=2, score_over="life"))


@pytest.mark.slow
def test_a_population_shares_worlds_coins_and_choices():
    """Members that are equal have equal fitness: nothing random is drawn for each."""
    es = evolved(SMALL, share="population", sigma=1e-20)
    state = es.init(jax.random.key(0))
    _, metrics = jax.jit(lambda state: es.step(jax.random.key(1), state, None))(state)
    assert float(metrics["fitness_std"]) == 0.0
    np.testing.assert_allclose(metrics["fitness_mean"], metrics["score"], rtol=1e-6)


def test_who_takes_which_agent():
    tasks = dataclasses.replace(BANDITS, lifetime=2)
    check_outer(Fixed(inner=learner(UCB1(), tasks), tasks=tasks, num_slots=2, truncation=2))
    with pytest.raises(ContractError, match="InContext has no differentiable outer loss"):
        check_outer(MetaGradient(inner=learner(SMALL, tasks), tasks=tasks, num_slots=2, truncation=2))
    with pytest.raises(ContractError, match="no meta-parameters: nothing for this outer loop to move"):
        check_outer(evolved(UCB1()))


def test_continuous_actions_are_refused():
    from inner_loops.tasks.gymnax_tasks import GymnaxTasks

    tasks = GymnaxTasks(name="Pendulum-v1")
    with pytest.raises(ContractError, match="'Pendulum-v1' has continuous actions"):
        check_inner(learner(SMALL, tasks), tasks)
