"""What an agent's prediction vector is compared with: exact values by hand, and the states visited."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.environments.delayed_chain import DelayedChain, DelayedChainParams
from inner_loops.environments.grid_world import GridWorld, GridWorldParams
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from inner_loops.update_rules.lpg import LPG


def test_values_of_a_chain_by_hand() -> None:
    # Length 3, discount 1/2. Action 0 when 0 is good: .8, so 2 x .8 - 1 = .6; action 1 when 1 is good: .1,
    # so -.8; both paid two steps later: a quarter. Chains at t = 1 and 2: -1 and 1, halved once and never.
    # State 6 and 7 are terminal; the table has room for length 5.
    policy = jnp.full((12, 2), 0.5).at[0].set(jnp.array([0.8, 0.2])).at[1].set(jnp.array([0.9, 0.1]))
    chain = DelayedChainParams(jnp.asarray(3, jnp.int32), jnp.asarray(1.0))
    found = DelayedChain(max_length=5).exact_values(chain, policy, jnp.asarray(0.5))
    np.testing.assert_allclose(found, [0.15, -0.2, -0.5, 0.5, -1, 1, 0, 0, 0, 0, 0, 0], rtol=1e-6)


def test_values_of_a_chain_agree_with_its_return() -> None:
    policy = jax.nn.softmax(jax.random.normal(jax.random.key(0), (12, 2)))
    chain = DelayedChainParams(jnp.asarray(4, jnp.int32), jnp.asarray(0.0))
    environment = DelayedChain(max_length=5)
    values = environment.exact_values(chain, policy, jnp.asarray(1.0))
    np.testing.assert_allclose(values[:2].mean(), environment.exact_return(chain, policy), rtol=1e-5)
    with pytest.raises(ValueError, match="no exact return of a table"):
        DelayedChain(max_length=5, observation="distractor").exact_values(chain, policy, jnp.asarray(1.0))


def test_values_of_a_grid_world_by_hand() -> None:
    # A corridor of two cells; the object in the second pays 1 and always reappears; right (action 2) for
    # ever, 3 steps, discount 1/2. Collected at the first entry, absent for a step, back, collected again.
    corridor = GridWorldParams(
        walls=jnp.zeros(2, bool),
        positions=jnp.array([1], jnp.int32),
        reward=jnp.array([1.0]),
        eps_term=jnp.array([0.0]),
        eps_respawn=jnp.array([1.0]),
        present=jnp.array([True]),
        start=jnp.asarray(0, jnp.int32),
        max_steps=jnp.asarray(3, jnp.int32),
        collects=jnp.asarray(False),
    )
    environment = GridWorld(max_height=1, max_width=2, num_objects=1)
    right = jnp.zeros((4, 5)).at[:, 2].set(1.0)
    found = environment.exact_values(corridor, right, jnp.asarray(0.5))
    # There: paid at steps 1 and 3, 1 + 1/4. Absent: back after step 1, paid at step 2, 1/2.
    np.testing.assert_allclose(found, [0.5, 1.25, 0.5, 1.25])
    undiscounted = environment.exact_values(corridor, right, jnp.asarray(1.0))
    assert undiscounted[1] == environment.exact_return(corridor, right) == 2.0


def agent(rule: LPG | A2C) -> tuple[ActorCritic, DelayedChains]:
    tasks = DelayedChains(lengths=(3,), max_length=5)
    return ActorCritic(rule=rule, environment=tasks.environment, num_envs=4, rollout_length=6), tasks


@pytest.mark.slow
def test_the_probe_is_of_the_states_that_a_uniform_policy_visits() -> None:
    inner, tasks = agent(LPG(hidden_size=4, prediction_size=3))
    key = jax.random.key(0)
    meta = inner.init_meta(key)
    state = inner.init(key, meta, tasks.sample(key))
    everywhere = inner.probe(key, meta, state)
    np.testing.assert_array_equal(np.flatnonzero(everywhere.visited), [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(np.exp(everywhere.features).sum(axis=-1), 1.0, rtol=1e-5)
    gamma = 0.99
    np.testing.assert_allclose(everywhere.targets[:6], [0, 0, -gamma, gamma, -1, 1], rtol=1e-5, atol=1e-6)
    # An agent that is always right never meets chain 0, and is asked about it all the same.
    sure = state.params | {"logits": state.params["logits"].at[:2].set(50.0 * jnp.eye(2))}
    right = inner.probe(key, meta, inner.init(key, meta, tasks.sample(key))._replace(params=sure))
    np.testing.assert_array_equal(right.visited, everywhere.visited)
    np.testing.assert_allclose(right.targets[:2], [gamma**2, gamma**2], rtol=1e-5)


def test_a_rule_without_predictions_is_refused() -> None:
    inner, tasks = agent(A2C())
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="rule A2C has no prediction vector y to probe"):
        inner.probe(key, (), inner.init(key, (), tasks.sample(key)))
