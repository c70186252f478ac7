"""What a learner exposes or learns is trained by either evolution loop; nothing of the learner changes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import TabularCritic
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from inner_loops.update_rules.lpg import LPG
from metalab.components import as_arrays
from metalab.exposure import expose, leaf_of
from metalab.optimizers import Adam, Sgd
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.persistent_evolution import PersistentEvolution
from tests.exposure_toys import Walker
from tests.toys import Targets

LOOPS = ("whole lives", "truncations")
RATE = "optimizer.learning_rate"


def evolution(loop: str, inner: Any, tasks: Any, lifetime: int, pairs: int, sigma: float, rate: float) -> Any:
    """Either loop over lives of ``lifetime`` updates, judged four times."""
    optimizer = Adam(learning_rate=rate)
    if loop == "truncations":
        return PersistentEvolution(
            inner=inner,
            tasks=tasks,
            truncation=lifetime // 4,
            num_pairs=pairs,
            sigma=sigma,
            optimizer=optimizer,
        )
    return EvolutionStrategy(
        inner=inner,
        tasks=tasks,
        population=2 * pairs,
        sigma=sigma,
        optimizer=optimizer,
        max_lifetime=lifetime,
        segments=4,
        score_over="life",
    )


@jax.jit
def trained(outer: Any, key: jax.Array, keys: jax.Array) -> tuple[Any, jax.Array]:
    state, metrics = jax.lax.scan(lambda state, key: outer.step(key, state, None), outer.init(key), keys)
    return outer.meta_params(state), metrics["score"]


def train(outer: Any, steps: int) -> tuple[Any, np.ndarray]:
    """The meta-parameters at the end, and the score of every outer step."""
    meta, scores = trained(as_arrays(outer), jax.random.key(0), jax.random.split(jax.random.key(1), steps))
    return meta, np.asarray(scores)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exposed_rate_is_found(loop: str) -> None:
    # The walker covers the share rate x gain (1 here) of its way: its best rate is 1, and it begins at 0.1.
    walker = Walker(gain=1.0, optimizer=Sgd(learning_rate=0.1))
    learner = expose(walker, [leaf_of(walker, RATE)])
    outer = evolution(loop, learner, Targets(lifetime=4), lifetime=4, pairs=16, sigma=0.1, rate=0.1)
    meta, scores = train(outer, 60)
    assert float(learner.values_of(meta)[RATE]) == pytest.approx(1.0, abs=0.35)
    assert scores[-10:].mean() > 0.3 * scores[:5].mean()  # scores are negative, 0 is perfect


def chain_learner(tasks: DelayedChains, rule: Any, rate: float) -> ActorCritic:
    return ActorCritic(
        rule=rule,
        critic=TabularCritic(),
        environment=tasks.environment,
        optimizer=Sgd(learning_rate=rate),
        num_envs=8,
        rollout_length=10,
    )


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_the_rate_of_an_actor_critic_that_hardly_learns_goes_up(loop: str) -> None:
    tasks = DelayedChains(lengths=(5, 6, 8), lifetime=16)
    agent = chain_learner(tasks, A2C(), rate=1.0)
    learner = expose(agent, [leaf_of(agent, RATE)])
    outer = evolution(loop, learner, tasks, lifetime=16, pairs=16, sigma=0.3, rate=0.1)
    meta, scores = train(outer, 40)
    assert float(learner.values_of(meta)[RATE]) > 4.0
    assert scores[-10:].mean() > scores[:10].mean() + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_a_learned_rule_improves(loop: str) -> None:
    tasks = DelayedChains(lengths=(5, 6, 8), lifetime=16)
    rule = LPG(hidden_size=8, prediction_size=4)
    agent = chain_learner(tasks, rule, rate=40.0)
    outer = evolution(loop, agent, tasks, lifetime=16, pairs=32, sigma=0.1, rate=0.03)
    _, scores = train(outer, 60)
    assert scores[-10:].mean() > scores[:10].mean() + 0.1
