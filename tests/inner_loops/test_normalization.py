"""Running moments against two passes of numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from inner_loops.normalization import no_moments, no_returns, scale_rewards, standardize, with_batch


def test_moments_of_batches_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    batches = [rng.normal(5.0, [1.0, 20.0], size=(4, n, 2)) + 3 * n for n in (1, 7, 50)]
    moments = no_moments((2,))
    for batch in batches:
        moments = jax.jit(with_batch)(moments, batch)
    samples = np.concatenate([batch.reshape(-1, 2) for batch in batches])
    assert float(moments.seen) == len(samples)
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, samples.var(0), rtol=1e-4)
    expected = (samples - samples.mean(0)) / samples.std(0)
    np.testing.assert_allclose(standardize(moments, jnp.asarray(samples)), expected, atol=1e-3)


def test_a_large_mean_does_not_swallow_the_variance():
    """Where sums of squares would cancel in float32: mean 1,000, deviation 0.1."""
    samples = 1000.0 + 0.1 * np.random.default_rng(1).normal(size=(2, 400, 1))
    moments = with_batch(with_batch(no_moments((1,)), samples[0]), samples[1])
    np.testing.assert_allclose(np.sqrt(moments.variance), samples.std(), rtol=0.01)


def test_before_the_first_sample_nothing_is_changed_within_bounds():
    values = jnp.asarray([-0.5, 3.0, 40.0])
    np.testing.assert_allclose(standardize(no_moments((3,)), values), [-0.5, 3.0, 10.0], rtol=1e-6)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return():
    rng = np.random.default_rng(2)
    scale, sums = no_returns(2), []
    running = np.zeros(2)
    for _ in range(3):
        reward = rng.normal(1.0, 2.0, size=(5, 2)).astype(np.float32)
        done = rng.random((5, 2)) < 0.3
        scale, scaled = jax.jit(scale_rewards)(scale, reward, done, 0.9)
        for t in range(5):
            running = 0.9 * running + reward[t]
            sums.append(running)
            running = np.where(done[t], 0.0, running)
        np.testing.assert_allclose(scaled, reward / np.std(sums), rtol=1e-3)
    np.testing.assert_allclose(scale.running, running, rtol=1e-4, atol=1e-5)
