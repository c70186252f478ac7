"""It learns: the hand-written rule, and the learned one under evolution and under the meta-gradient."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import TabularCritic
from inner_loops.environments.delayed_chain import information_floor
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from inner_loops.update_rules.lpg import LPG
from metalab.components import as_arrays
from metalab.optimizers import Adam, Sgd
from metalab.spec import EvaluationSet
from metalab.sweep.evaluation import evaluate_set, scores_of
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.meta_gradient import MetaGradient

pytestmark = pytest.mark.slow

NUM_ENVS, ROLLOUT_LENGTH, META_SEEDS = 16, 20, 3


def train(outer: Any, steps: int) -> tuple[Any, dict[str, np.ndarray]]:
    """Outer states ``[META_SEEDS, ...]`` after ``steps``, and metrics ``[META_SEEDS, steps]``."""
    loop = as_arrays(outer)

    def one_seed(key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        init_key, train_key = jax.random.split(key)
        keys = jax.random.split(train_key, steps)
        return jax.lax.scan(lambda state, key: loop.step(key, state, None), loop.init(init_key), keys)

    states, metrics = jax.jit(jax.vmap(one_seed))(jax.random.split(jax.random.key(0), META_SEEDS))
    return states, {name: np.asarray(values) for name, values in metrics.items()}


def returns_of(inner: Any, tasks: Any, metas: Any, updates: int, count: int) -> np.ndarray:
    """[META_SEEDS, count, updates + 1] returns along the lives of fresh learners."""
    where = EvaluationSet("test", inner, tasks, count, updates, 1, seed=3, threshold=None)
    one = jax.jit(jax.vmap(lambda meta, key: evaluate_set(as_arrays(inner), where, meta, key)["return"]))
    return np.asarray(one(metas, jax.random.split(jax.random.key(1), META_SEEDS)))


def test_a2c_solves_noiseless_chains_in_as_few_steps_as_can_be() -> None:
    lengths = (5, 8, 10, 13, 18, 23, 28)
    tasks = DelayedChains(lengths=lengths)
    inner = ActorCritic(
        rule=A2C(),
        critic=TabularCritic(rate=1.0, trace_decay=1.0),
        optimizer=Sgd(learning_rate=320.0),
        environment=tasks.environment,
        num_envs=NUM_ENVS,
        rollout_length=ROLLOUT_LENGTH,
    )
    found = returns_of(inner, tasks, (), updates=20, count=len(lengths))
    steps = np.arange(found.shape[-1]) * inner.steps_per_update
    for seed in range(META_SEEDS):
        reached = [scores_of(life[None], steps, 0.9) for life in found[seed]]
        assert all(one["success"] == 1.0 for one in reached)
        floors = [information_floor(length, NUM_ENVS, ROLLOUT_LENGTH) for length in lengths]
        assert [one["steps_to_threshold"] for one in reached] == floors


def small_learner(tasks: DelayedChains, **changes: Any) -> ActorCritic:
    rule = LPG(hidden_size=16, prediction_size=8, target_weight=0.5, y_hat_l2=1e-4)
    return ActorCritic(
        rule=rule, optimizer=Sgd(learning_rate=160.0), environment=tasks.environment, **changes
    )


def test_evolution_improves_the_learned_rule() -> None:
    tasks = DelayedChains(lengths=(5, 6, 8), lifetime=16)
    inner = small_learner(tasks, num_envs=8, rollout_length=10)
    outer = EvolutionStrategy(
        inner=inner,
        tasks=tasks,
        population=32,
        sigma=0.1,
        optimizer=Adam(learning_rate=0.03),
        fitness_shaping="pairwise_rank",
        num_tasks=2,
        max_lifetime=16,
        segments=4,
        score_over="life",
    )
    _, metrics = train(outer, 60)
    fitness = metrics["fitness_mean"]
    gain = fitness[:, -5:].mean(axis=1) - fitness[:, :5].mean(axis=1)
    assert (gain > 0.2).all(), gain


def test_the_meta_gradient_improves_the_learned_rule() -> None:
    tasks = DelayedChains(lengths=tuple(range(5, 13)), noise=1.0, lifetime=40)
    inner = small_learner(tasks, num_envs=NUM_ENVS, rollout_length=ROLLOUT_LENGTH, outer_reward="score")
    outer = MetaGradient(
        inner=inner,
        tasks=tasks,
        num_slots=16,
        max_slot_norm=0.2,
        optimizer=Adam(learning_rate=2e-3, max_grad_norm=0.5),
    )
    untrained, states = train(outer, 0)[0], train(outer, 100)[0]
    before, after = (
        returns_of(inner, tasks, metas, updates=40, count=16)[..., -3:].mean(axis=(1, 2))
        for metas in (untrained.meta, states.meta)
    )
    assert (after > before + 0.2).all(), (before, after)
