"""Distributions over actions: densities by hand, samples by frequency."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from inner_loops.distributions import Categorical, Gaussian


def test_categorical_by_hand():
    """Logits log(1, 2, 1): probabilities 1/4, 1/2, 1/4, entropy 2 * 1/4 log 4 + 1/2 log 2 = 3/2 log 2."""
    policy = Categorical(jnp.log(jnp.asarray([1.0, 2.0, 1.0])))
    found = [float(policy.log_prob(jnp.asarray(action))) for action in range(3)]
    np.testing.assert_allclose(found, np.log([0.25, 0.5, 0.25]), rtol=1e-6)
    assert float(policy.entropy()) == pytest.approx(1.5 * np.log(2.0), rel=1e-6)


def test_categorical_samples_by_inverting_the_distribution_function():
    """Cumulated probabilities 1/4, 3/4, 1: a number at a border belongs to the action above it."""
    policy = Categorical(jnp.log(jnp.asarray([1.0, 2.0, 1.0])))
    numbers = jnp.asarray([0.0, 0.24, 0.25, 0.74, 0.75, 1.0 - 2.0**-23])
    actions = Categorical(jnp.broadcast_to(policy.logits, (6, 3))).sample(numbers)
    np.testing.assert_array_equal(actions, [0, 0, 1, 1, 2, 2])
    assert actions.dtype == jnp.int32


@pytest.mark.parametrize("forbidden", [0, 1, 2])
def test_a_forbidden_action_is_never_drawn(forbidden):
    logits = jnp.asarray([0.3, -0.2, 0.9]).at[forbidden].set(-1e9)
    ends = jnp.asarray([0.0, 1.0 - 2.0**-23])
    numbers = jnp.concatenate([jax.random.uniform(jax.random.key(0), (10_000,)), ends])
    actions = np.asarray(Categorical(jnp.broadcast_to(logits, (numbers.size, 3))).sample(numbers))
    shares = np.bincount(actions, minlength=3) / numbers.size
    assert shares[forbidden] == 0.0
    np.testing.assert_allclose(shares, jax.nn.softmax(logits), atol=0.02)  # 4 standard errors
    assert float(Categorical(logits).log_prob(jnp.asarray(forbidden))) < -1e8
    assert np.isfinite(Categorical(logits).entropy())


def test_categorical_gradient_is_one_hot_less_probabilities():
    logits = jnp.asarray([0.1, -0.4, 0.7])
    found = jax.grad(lambda one: Categorical(one).log_prob(jnp.asarray(2)))(logits)
    np.testing.assert_allclose(found, np.eye(3)[2] - jax.nn.softmax(logits), atol=1e-6)


def test_gaussian_agrees_with_scipy():
    mean, log_std = np.asarray([[0.5, -1.0], [2.0, 0.0]]), np.asarray([0.3, -0.7])
    action = np.asarray([[0.1, -0.8], [2.5, 0.4]])
    policy = Gaussian(jnp.asarray(mean), jnp.asarray(log_std))
    reference: Any = stats.norm(mean, np.exp(log_std))
    np.testing.assert_allclose(
        policy.log_prob(jnp.asarray(action)), reference.logpdf(action).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(policy.entropy(), reference.entropy().sum(-1), rtol=1e-5)


def test_gaussian_samples_are_mean_plus_deviation_times_noise():
    policy = Gaussian(jnp.asarray([1.0, -2.0]), jnp.log(jnp.asarray([0.5, 3.0])))
    np.testing.assert_allclose(policy.sample(jnp.asarray([2.0, -1.0])), [2.0, -5.0], rtol=1e-6)
