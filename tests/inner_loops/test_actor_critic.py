"""The actor-critic's rollout and update, and what it refuses."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic, _sample
from inner_loops.critics import NetworkCritic
from inner_loops.networks.mlp import ConvNetwork, MlpNetwork
from inner_loops.networks.tabular import TabularNetwork
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from metalab.optimizers import Sgd
from tests.inner_loops.lives import last_scores

TASKS = DelayedChains(lengths=(3,), max_length=3)
A2C_AGENT = ActorCritic(
    rule=A2C(), environment=TASKS.environment, optimizer=Sgd(learning_rate=1.0), num_envs=4, rollout_length=7
)


def newborn(agent=A2C_AGENT, tasks=TASKS):
    return agent.init(jax.random.key(0), (), tasks.sample(jax.random.key(1)))


def test_rollout_is_one_continuous_record():
    """Length 3, seven steps: ends at steps 2 and 5; observations join up except across an end."""
    state, record = jax.jit(A2C_AGENT._rollout)(jax.random.key(2), newborn())
    chex.assert_shape([record.action, record.reward, record.terminated], (7, 4))
    np.testing.assert_array_equal(record.done[:, 0], [False, False, True, False, False, True, False])
    kept = ~record.done
    np.testing.assert_array_equal(record.obs[1:][kept], record.next_obs[kept])
    assert jnp.all(record.obs[1:][record.done] < 2) and jnp.all(record.next_obs[record.done] >= 6)
    later, following = jax.jit(A2C_AGENT._rollout)(jax.random.key(3), state)
    np.testing.assert_array_equal(following.obs[0], record.obs[-1])
    np.testing.assert_array_equal(later.episodes.ended, [4] * 4)  # 14 steps of length 3


def test_episode_scores_survive_the_reset():
    state, record = jax.jit(A2C_AGENT._rollout)(jax.random.key(2), newborn())
    np.testing.assert_allclose(state.episodes.last, record.reward[5])  # the last end was at step 5
    np.testing.assert_array_equal(state.episodes.ended, [2] * 4)
    np.testing.assert_allclose(state.episodes.running, record.reward[6])


def test_one_a2c_update_equals_the_hand_written_policy_gradient():
    """SGD with rate 1 on a table adds mean over samples of A * (onehot(a) - pi) to the state's row."""
    state = newborn()
    after, out = jax.jit(lambda s: A2C_AGENT.step(jax.random.key(2), (), s, None))(state)
    record = out.record
    advantages = A2C_AGENT._rule_inputs(state, record).advantages
    expected = np.zeros_like(np.asarray(state.params["logits"]))
    for t in range(7):
        for b in range(4):
            gradient = np.eye(2)[record.action[t, b]] - 0.5
            expected[record.obs[t, b]] += np.asarray(advantages[t, b]) * gradient / 28
    np.testing.assert_allclose(after.params["logits"], expected, atol=1e-6)
    assert jnp.any(after.params["logits"] != 0)


def test_assessment_is_the_exact_return_of_the_table():
    state = newborn()
    logits = jnp.zeros_like(state.params["logits"]).at[0, 0].set(2.0)
    state = state._replace(params={"logits": logits})
    # p(good | start 0) = sigmoid(2), p(good | start 1) = 1/2: return = sigmoid(2) + 1/2 - 1
    found = A2C_AGENT.assess(jax.random.key(0), (), state)["return"]
    assert found == pytest.approx(float(jax.nn.sigmoid(2.0)) - 0.5, rel=1e-5)


@pytest.mark.slow
def test_jit_changes_nothing():
    agent = dataclasses.replace(A2C_AGENT, num_envs=2, rollout_length=2)
    state = newborn(agent)
    jitted = jax.jit(lambda s: agent.step(jax.random.key(2), (), s, None)[0])(state)
    with jax.disable_jit():
        plain = agent.step(jax.random.key(2), (), state, None)[0]
    chex.assert_trees_all_close(jitted, plain, rtol=1e-5, atol=1e-6)


def test_sampling_follows_the_policy_and_never_takes_a_forbidden_action():
    logits = jnp.log(jnp.asarray([0.5, 0.2, 0.3, 1e-30]))
    logits = jnp.where(jnp.asarray([True, True, True, False]), logits, -1e9)
    uniform = jnp.concatenate(
        [jax.random.uniform(jax.random.key(0), (20_000,)), jnp.asarray([0.0, 1 - 2**-24])]
    )
    actions = _sample(jnp.broadcast_to(logits, (uniform.size, 4)), uniform)
    shares = np.bincount(np.asarray(actions), minlength=4) / uniform.size
    np.testing.assert_allclose(shares[:3], [0.5, 0.2, 0.3], atol=0.015)  # 4 standard errors of 20,000 draws
    assert shares[3] == 0.0


@pytest.mark.parametrize(
    ("network", "observation", "message"),
    [
        (TabularNetwork(), "distractor", "needs state indices"),
        (MlpNetwork(), "index", "choose network tabular"),
        (ConvNetwork(), "distractor", "choose network mlp"),
    ],
)
def test_a_network_that_does_not_fit_the_observation_is_refused(network, observation, message):
    tasks = DelayedChains(lengths=(3,), max_length=3, observation=observation)
    agent = dataclasses.replace(
        A2C_AGENT, network=network, environment=tasks.environment, critic=NetworkCritic()
    )
    with pytest.raises(ValueError, match=message):
        newborn(agent, tasks)


def test_an_unknown_hyperparameter_of_a_lifetime_is_refused_by_name():
    task = TASKS.sample(jax.random.key(1))
    task = task._replace(params=task.params._replace(hyper={"gae_lambda": jnp.ones(())}))
    with pytest.raises(ValueError, match=r"gae_lambda.*learning_rate"):
        A2C_AGENT.init(jax.random.key(0), (), task)


def test_a_hand_written_rule_may_not_learn_from_the_hidden_score():
    with pytest.raises(ValueError, match="outer_reward='score' needs a learned rule"):
        dataclasses.replace(A2C_AGENT, outer_reward="score")


def test_a_network_agent_learns_the_distractor_chain_better_than_it_was_born():
    tasks = DelayedChains(lengths=(3,), max_length=3, observation="distractor")
    agent = ActorCritic(
        rule=A2C(),
        network=MlpNetwork(hidden_sizes=(16,)),
        critic=NetworkCritic(),
        environment=tasks.environment,
        optimizer=Sgd(learning_rate=1.0),
    )
    assert jnp.mean(last_scores(agent, tasks, updates=60, seeds=3)) > 0.7
