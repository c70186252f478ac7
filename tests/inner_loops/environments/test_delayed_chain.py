import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.delayed_chain import (
    DelayedChain,
    DelayedChainParams,
    DelayedChainState,
    information_floor,
)

CHAIN = DelayedChain(max_length=6)
NUM_STATES = 14  # 2 + 2 * 6


def params(length: int, noise: float = 0.0) -> DelayedChainParams:
    return DelayedChainParams(jnp.asarray(length, jnp.int32), jnp.asarray(noise, jnp.float32))


def play(good_action, first_action, world, steps, seed=0):
    """Observations, rewards, scores, ends of ``steps`` steps whose first action is given, later ones 0."""
    state = DelayedChainState(*(jnp.asarray(x, jnp.int32) for x in (0, good_action, 0)))
    rows = []
    for step, key in enumerate(jax.random.split(jax.random.key(seed), steps)):
        action = jnp.asarray(first_action if step == 0 else 0)
        _, state, reward, terminated, truncated, info = CHAIN.step(key, state, action, world)
        rows.append((int(info["final_observation"]), float(reward), float(info["score"]), bool(terminated)))
        assert not truncated
    return rows


def test_good_first_action_by_hand():
    # length 4, good action 1 taken: chain 1; indices 2 + 2 (t - 1) + 1 = 3, 5, 7, 9; paid at the fourth step
    assert play(1, 1, params(4), 4) == [
        (3, 0.0, 0.0, False),
        (5, 0.0, 0.0, False),
        (7, 0.0, 0.0, False),
        (9, 1.0, 1.0, True),
    ]


def test_bad_first_action_by_hand():
    assert play(0, 1, params(3), 3) == [(2, 0.0, 0.0, False), (4, 0.0, 0.0, False), (6, -1.0, -1.0, True)]


def test_one_step_episode_is_decided_and_paid_at_once():
    assert play(0, 0, params(1), 1) == [(3, 1.0, 1.0, True)]


def test_indices_are_distinct_and_fit_the_table():
    seen = {0, 1}  # the two first states
    for first in (0, 1):
        seen |= {index for index, *_ in play(1, first, params(6), 6)}
    assert CHAIN.num_states == NUM_STATES
    assert seen == set(range(NUM_STATES))  # none twice, none missing


def test_noise_is_on_middle_states_only_and_not_in_the_score():
    rewards = np.array([[row[1] for row in play(1, 1, params(5, 1.0), 5, seed)] for seed in range(20)])
    assert np.all(rewards[:, 0] == 0.0)
    assert np.all(rewards[:, 4] == 1.0)
    assert np.all(np.abs(rewards[:, 1:4]) == 1.0)
    assert abs(rewards[:, 1:4].mean()) < 0.4  # 60 fair signs: standard error 0.13
    assert [row[2] for row in play(1, 1, params(5, 1.0), 5)] == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_auto_reset_starts_a_new_episode_and_keeps_the_final_observation():
    state = DelayedChainState(*(jnp.asarray(x, jnp.int32) for x in (2, 1, 1)))
    keys = jax.random.split(jax.random.key(0), 64)
    step = jax.vmap(lambda key: CHAIN.step(key, state, jnp.asarray(0), params(3)))
    obs, new_state, reward, terminated, _, info = step(keys)
    assert np.all(terminated)
    assert np.all(reward == 1.0)
    assert np.all(info["final_observation"] == 7)  # 2 * 3 + 1
    assert np.all(new_state.time == 0)
    np.testing.assert_array_equal(obs, new_state.good_action)
    assert 0.2 < np.mean(obs) < 0.8  # 64 fair coins: 4.8 standard errors


def rollout_score(policy, world, seed=0, episodes=4000):
    def episode(key):
        def body(carry, key):
            obs, state = carry
            act_key, step_key = jax.random.split(key)
            action = jax.random.categorical(act_key, jnp.log(policy[obs]))
            obs, state, _, _, _, info = CHAIN.step(step_key, state, action, world)
            return (obs, state), info["score"]

        reset_key, run_key = jax.random.split(key)
        _, scores = jax.lax.scan(body, CHAIN.reset(reset_key, world), jax.random.split(run_key, 5))
        return scores.sum()

    scores = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes))
    return float(scores.mean()), float(scores.std() / np.sqrt(episodes))


def test_exact_return_is_that_of_rollouts():
    policy = jax.nn.softmax(jax.random.normal(jax.random.key(3), (NUM_STATES, 2)))
    mean, error = rollout_score(policy, params(5, 1.0))
    assert abs(mean - float(CHAIN.exact_return(params(5), policy))) < 4 * error


def test_only_the_first_state_matters():
    uniform = jnp.full((NUM_STATES, 2), 0.5)
    solved = uniform.at[0].set(jnp.array([1.0, 0.0])).at[1].set(jnp.array([0.0, 1.0]))
    late = jnp.concatenate([uniform[:2], solved[jnp.zeros(12, int)]])  # knows everything but the first states
    assert rollout_score(solved, params(5))[0] == 1.0
    assert abs(rollout_score(late, params(5))[0]) < 0.1
    assert float(CHAIN.exact_return(params(5), solved)) == float(CHAIN.optimal_return(params(5))) == 1.0
    assert float(CHAIN.exact_return(params(5), late)) == 0.0
    blind = uniform.at[:2].set(jnp.array([1.0, 0.0]))  # a first action that ignores the observation
    assert float(CHAIN.exact_return(params(5), blind)) == 0.0


def test_distractor_observation():
    chain = DelayedChain(max_length=6, observation="distractor")
    assert (chain.num_states, chain.observation_shape) == (None, (22,))
    keys = jax.random.split(jax.random.key(0), 500)
    obs, state = jax.vmap(lambda key: chain.reset(key, params(5)))(keys)
    np.testing.assert_array_equal(obs[:, 0], state.good_action == 0)
    assert np.all(obs[:, 1] == 0.0)
    assert np.all((obs == 0.0) | (obs == 1.0))
    np.testing.assert_allclose(obs[:, 2:].mean(0), 0.5, atol=0.1)  # 4.5 standard errors
    assert abs(np.corrcoef(obs[:, 0], obs[:, 2])[0, 1]) < 0.2  # the first distractor is not the coin
    after, *_ = jax.vmap(lambda key, s: chain.step(key, s, s.good_action, params(5)))(keys, state)
    assert np.all(after[:, 1] == 1.0)
    assert np.mean(after[:, 2:] == obs[:, 2:]) < 0.6  # drawn again at every state
    with pytest.raises(ValueError, match="observation='distractor' has no exact return"):
        chain.exact_return(params(5), jnp.ones((14, 2)) / 2)


def test_vmapped_is_single():
    keys = jax.random.split(jax.random.key(1), 5)
    worlds = DelayedChainParams(jnp.arange(1, 6, dtype=jnp.int32), jnp.linspace(0.0, 1.0, 5))
    state = DelayedChainState(*(jnp.asarray(x, jnp.int32) for x in (1, 1, 0)))
    step = lambda key, world: CHAIN.step(key, state, jnp.asarray(1), world)  # noqa: E731
    together = jax.vmap(step)(keys, worlds)
    for index in range(5):
        alone = step(keys[index], jax.tree.map(lambda x, i=index: x[i], worlds))
        jax.tree.map(lambda a, b, i=index: np.testing.assert_array_equal(a[i], b), together, alone)


def test_information_floor_is_the_measured_optimum():
    # what a perfectly tuned actor-critic reaches with 16 environments and rollouts of 20
    held_out = (8, 13, 18, 23, 28)
    training = [length for length in range(5, 31) if length not in held_out]
    assert round(np.mean([information_floor(length, 16, 20) for length in training])) == 1219
    assert np.mean([information_floor(length, 16, 20) for length in held_out]) == 1088
    # 40: batch 2 ends with the episode and values states 20-39; batch 3 bootstraps the first one: 3 * 320
    assert information_floor(40, 16, 20) == 960
    assert information_floor(50, 16, 20) == 3520
    with pytest.raises(ValueError, match="length=0"):
        information_floor(0, 16, 20)
