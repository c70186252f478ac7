"""Whatever moves meta-parameters tunes a real agent: A2C on a delayed chain that begins with a step size of
a hundredth of what it needs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import TabularCritic
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from metalab.components import as_arrays
from metalab.exposure import expose, leaf_of
from metalab.optimizers import Adam, Sgd
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.meta_gradient import MetaGradient
from outer_loops.population_based import PopulationBased

RATE = "optimizer.learning_rate"
TASKS = DelayedChains(lengths=(3,), max_length=3, lifetime=30)
AGENT = ActorCritic(
    rule=A2C(entropy=0.01),
    environment=TASKS.environment,
    optimizer=Sgd(learning_rate=0.2),
    critic=TabularCritic(trace_decay=0.95),
    num_envs=8,
    rollout_length=8,
    outer_discount=0.99,
    outer_trace_decay=0.95,
)
TUNED = expose(AGENT, [leaf_of(AGENT, RATE), leaf_of(AGENT, "rule.entropy")])

OUTER = {
    "meta_gradient": MetaGradient(
        inner=TUNED, tasks=TASKS, num_slots=8, truncation=5, optimizer=Adam(learning_rate=0.1)
    ),
    "evolution_strategy": EvolutionStrategy(
        inner=TUNED,
        tasks=TASKS,
        population=16,
        max_lifetime=30,
        sigma=0.5,
        optimizer=Adam(learning_rate=0.3),
    ),
    "population_based": PopulationBased(inner=TUNED, tasks=TASKS, population=16, truncation=30, interval=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OUTER)
def test_the_step_size_of_an_agent_is_found(kind):
    """Fresh agents with the values found, against agents with those that it began with."""
    outer: Any = as_arrays(OUTER[kind])

    @jax.jit
    def tuned(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        step = lambda state, key: (outer.step(key, state, None)[0], None)  # noqa: E731
        state = jax.lax.scan(step, outer.init(key), jax.random.split(key, 60))[0]
        meta = outer.meta_params(state)
        return outer.inner.values_of(meta)[RATE], raised(outer.inner, meta, key)

    rate, after = tuned(jax.random.key(0))
    before = raised(outer.inner, outer.inner.init_meta(jax.random.key(0)), jax.random.key(0))
    assert float(before) < 0.5 < 0.85 < float(after)  # of 1; a uniform policy has 0
    assert float(rate) > 2.0


def raised(learner: Any, meta: Any, key: jax.Array) -> jax.Array:
    """[] mean exact return of 16 agents at the end of their lives."""

    def live(key: jax.Array) -> jax.Array:
        state = learner.init(key, meta, TASKS.sample(key))
        step = lambda state, key: (learner.step(key, meta, state, None)[0], None)  # noqa: E731
        state = jax.lax.scan(step, state, jax.random.split(key, 30))[0]
        return learner.assess(key, meta, state)["return"]

    return jnp.mean(jax.vmap(live)(jax.random.split(key, 16)))
