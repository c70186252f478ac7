"""Golden values of advantages and critics, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.critics import NetworkCritic, TabularCritic, critic_advantages
from inner_loops.environments.delayed_chain import DelayedChain
from inner_loops.returns import generalized_advantages
from inner_loops.trajectory import Trajectory


def advantages(terminated, truncated, discount=0.5, lambda_=0.5):
    return generalized_advantages(
        r_t=jnp.asarray([1.0, 2.0, 3.0]),
        v_tm1=jnp.asarray([10.0, 20.0, 30.0]),
        v_t=jnp.asarray([20.0, 40.0, 50.0]),
        terminated_t=jnp.asarray(terminated),
        truncated_t=jnp.asarray(truncated),
        discount=jnp.asarray(discount),
        lambda_=jnp.asarray(lambda_),
    )


NO, MIDDLE = [False] * 3, [False, True, False]


def test_advantages_of_an_open_trajectory():
    # deltas: 1 + .5*20 - 10 = 1; 2 + .5*40 - 20 = 2; 3 + .5*50 - 30 = -2
    # A_2 = -2; A_1 = 2 + .25*-2 = 1.5; A_0 = 1 + .25*1.5 = 1.375
    np.testing.assert_allclose(advantages(NO, NO), [1.375, 1.5, -2.0])


def test_a_termination_does_not_bootstrap():
    # delta_1 = 2 - 20 = -18 and nothing flows across it; A_0 = 1 + .25*-18 = -3.5
    np.testing.assert_allclose(advantages(MIDDLE, NO), [-3.5, -18.0, -2.0])


def test_a_time_limit_bootstraps_but_lets_nothing_across():
    # delta_1 = 2 as in the open case; A_1 = 2; A_0 = 1 + .25*2 = 1.5
    np.testing.assert_allclose(advantages(NO, MIDDLE), [1.5, 2.0, -2.0])


def trajectory(obs, reward, terminated) -> Trajectory:
    obs, reward = jnp.asarray(obs), jnp.asarray(reward)
    terminated = jnp.asarray(terminated)
    return Trajectory(
        obs=obs,
        action=jnp.zeros(reward.shape, jnp.int32),
        reward=reward,
        score=reward,
        terminated=terminated,
        truncated=jnp.zeros_like(terminated),
        next_obs=obs[1:],
        action_mask=jnp.ones(2, bool),
    )


def test_tabular_critic_moves_by_the_mean_advantage_of_a_state():
    # Two environments, one step: both leave state 0, with rewards 1 and 3, and end. V = 0 everywhere, so the
    # advantages are 1 and 3, their mean 2, and rate 0.3 moves V(0) to 0.6. Unvisited states stay.
    record = trajectory([[0, 0], [1, 1]], [[1.0, 3.0]], [[True, True]])
    critic = TabularCritic(rate=0.3, trace_decay=1.0)
    state = critic.init(jax.random.key(0), DelayedChain(max_length=3))
    found = critic_advantages(critic, state, record, jnp.asarray(0.9))
    np.testing.assert_allclose(found, [[1.0, 3.0]])
    np.testing.assert_allclose(critic.update(state, record, found), [0.6] + [0.0] * 7, rtol=1e-6)


def test_network_critic_descends_to_constant_returns():
    critic = NetworkCritic()
    environment = DelayedChain(max_length=3, observation="distractor")
    state = critic.init(jax.random.key(0), environment)
    obs = jax.random.bernoulli(jax.random.key(1), 0.5, (9, 4, 22)).astype(jnp.float32)
    record = trajectory(obs, jnp.ones((8, 4)), jnp.ones((8, 4), bool))

    def body(state, _):
        error = critic_advantages(critic, state, record, jnp.asarray(0.9))
        return critic.update(state, record, error), jnp.mean(jnp.square(error))

    _, errors = jax.jit(lambda state: jax.lax.scan(body, state, length=300))(state)
    assert errors[0] > 0.1 and errors[-1] < 0.01


def test_tabular_critic_refuses_arrays():
    with pytest.raises(ValueError, match="needs state indices"):
        TabularCritic().init(jax.random.key(0), DelayedChain(observation="distractor"))
