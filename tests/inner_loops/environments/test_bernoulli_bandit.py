"""Bandits: payouts, regret and padding by hand, and every distribution's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.bernoulli_bandit import BanditParams, BernoulliBandit
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits

PARAMS = BanditParams(jnp.asarray([0.25, 0.75, 0.0]), jnp.asarray([True, True, False]))


def test_a_pull_by_hand():
    bandit = BernoulliBandit(max_arms=3)
    obs, state = bandit.reset(jax.random.key(0), PARAMS)
    np.testing.assert_array_equal(obs, [1.0])
    for noise, action, paid in ((0.2, 0, 1.0), (0.3, 0, 0.0), (0.3, 1, 1.0)):
        obs, state, reward, terminated, truncated, info = bandit.step_with(
            (jnp.asarray(noise), ()), state, jnp.asarray(action), PARAMS
        )
        np.testing.assert_array_equal(obs, [1.0])
        assert float(reward) == paid and reward.dtype == jnp.float32
        assert bool(terminated) and not bool(truncated)
        assert float(info["score"]) == [0.25, 0.75][action]
        assert float(info["tallies"]["regret"]) == [0.5, 0.0][action]
    assert float(bandit.optimal_return(PARAMS)) == 0.75
    np.testing.assert_array_equal(bandit.action_mask(PARAMS), [True, True, False])


def test_rewards_are_coins_of_the_arms_probability():
    bandit = BernoulliBandit(max_arms=3)
    keys = jax.random.split(jax.random.key(0), 4000)
    rewards = jax.jit(jax.vmap(lambda key: bandit.step(key, (), jnp.asarray(1), PARAMS)[2]))(keys)
    assert abs(float(jnp.mean(rewards)) - 0.75) < 0.028  # four standard errors


def payouts(count: int = 2000, **settings) -> tuple[np.ndarray, np.ndarray]:
    """[count, A] probabilities and which arms are there."""
    tasks = BernoulliBandits(**settings)
    params = jax.jit(lambda key: tasks.sample_set(key, count))(jax.random.key(0)).params.env_params
    return np.asarray(params.probability), np.asarray(params.present)


@pytest.mark.parametrize(
    ("distribution", "arms", "low", "high"),
    [
        ("uniform", 3, [0.0] * 3, [1.0] * 3),
        ("dependent_uniform", 2, [0.0] * 2, [1.0] * 2),
        ("biased", 4, [0.5, 0.0, 0.5, 0.0], [1.0, 0.5, 1.0, 0.5]),
        ("flipped", 3, [0.0, 0.5, 0.0], [0.5, 1.0, 0.5]),
    ],
)
def test_payouts_are_uniform_on_the_arms_own_interval(distribution, arms, low, high):
    probability, _ = payouts(distribution=distribution, arms=(arms,))
    assert np.all(probability >= low) and np.all(probability <= high)
    np.testing.assert_allclose(probability.min(axis=0), low, atol=0.01)
    np.testing.assert_allclose(probability.max(axis=0), high, atol=0.01)
    np.testing.assert_allclose(probability.mean(axis=0), np.add(low, high) / 2, atol=0.03)
    together = np.corrcoef(probability, rowvar=False)[0, 1]
    assert abs(together - (-1.0 if distribution == "dependent_uniform" else 0.0)) < 0.1


@pytest.mark.parametrize(
    ("distribution", "low"), [("dependent_easy", 0.1), ("dependent_medium", 0.25), ("dependent_hard", 0.4)]
)
def test_dependent_arms_are_one_good_and_one_bad(distribution, low):
    probability, _ = payouts(distribution=distribution)
    np.testing.assert_allclose(np.sort(probability, axis=1), [[low, 1.0 - low]] * 2000, rtol=1e-6)
    assert abs(np.mean(probability[:, 0] < 0.5) - 0.5) < 0.045


def test_several_numbers_of_arms_are_one_shape():
    tasks = BernoulliBandits(arms=(2, 5))
    probability, present = payouts(count=6, arms=(2, 5))
    np.testing.assert_array_equal(present.sum(axis=1), [2, 5, 2, 5, 2, 5])
    assert not probability[~present].any() and probability[present].all()
    assert tasks.environment.num_actions == 5 and tasks.num_kinds == 2
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 400)).params
    counts = np.asarray(drawn.env_params.present).sum(axis=1)
    np.testing.assert_array_equal(np.asarray([2, 5])[np.asarray(drawn.kind)], counts)
    assert abs(np.mean(counts == 2) - 0.5) < 0.1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arms": ()}, r"arms=\(\) must be one or more"),
        ({"arms": (0, 2)}, r"arms=\(0, 2\)"),
        ({"arms": (3,), "distribution": "dependent_easy"}, r"'dependent_easy' has two arms, got arms=\(3,\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        BernoulliBandits(**settings)


@pytest.mark.parametrize(("distribution", "odd"), [("mostly_odd", True), ("mostly_even", False)])
def test_in_most_bandits_the_good_arms_are_those_of_the_name(distribution: str, odd: bool):
    """Of 1000 bandits 950, standard error 7; every bandit has all its good arms on one side of 1/2."""
    tasks = BernoulliBandits(distribution=distribution, arms=(10,))
    payouts = np.asarray(tasks.sample_set(jax.random.key(0), 1000).params.env_params.probability)
    good = payouts >= 0.5
    arms_as_named = np.sum(good == (np.arange(10) % 2 == odd), axis=1)
    assert set(arms_as_named.tolist()) == {0, 10}
    assert abs(np.sum(arms_as_named == 10) - 950) < 28
