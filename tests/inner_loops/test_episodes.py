"""Episode statistics of a rollout against counting step by step."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.episodes import count_episodes, no_episodes


def test_by_hand():
    """Ends after steps 1 and 3 of five: episodes score 0 + 1 and 2 + 3, and 4 is of the one in progress."""
    score = jnp.arange(5.0)[:, None]
    done = jnp.asarray([False, True, False, True, False])[:, None]
    found = count_episodes(no_episodes(1), score, done)
    np.testing.assert_array_equal(jnp.concatenate(found), [4.0, 5.0, 2.0])
    again = count_episodes(found, score, jnp.zeros_like(done))
    np.testing.assert_array_equal(jnp.concatenate(again), [14.0, 5.0, 2.0])


def test_before_an_episode_ends_the_one_in_progress_counts():
    """Rewards of -1: a newborn has no score, then -2 and -4 so far, and -5 when the episode ends."""
    score, going = jnp.full((2, 1), -1.0), jnp.zeros((2, 1), bool)
    found = no_episodes(1)
    assert np.isnan(found.last)
    for expected in (-2.0, -4.0):
        found = count_episodes(found, score, going)
        assert (float(found.last[0]), int(found.ended[0])) == (expected, 0)
    found = count_episodes(found, score, going.at[0].set(True))
    assert [float(x[0]) for x in found] == [-1.0, -5.0, 1]
    assert float(count_episodes(found, score, going).last[0]) == -5.0


@given(seed=st.integers(0, 2**20), chance=st.floats(0.0, 1.0))
def test_equals_counting_step_by_step(seed, chance):
    rng = np.random.default_rng(seed)
    running, last, ended = np.zeros(3), np.full(3, np.nan), np.zeros(3)
    found = no_episodes(3)
    for _ in range(3):
        score, done = rng.normal(size=(6, 3)).astype(np.float32), rng.random((6, 3)) < chance
        found = jax.jit(count_episodes)(found, score, done)
        for t in range(6):
            running += score[t]
            last, ended = np.where(done[t], running, last), ended + done[t]
            running = np.where(done[t], 0.0, running)
    np.testing.assert_allclose(found.running, running, atol=1e-5)
    np.testing.assert_allclose(found.last, np.where(ended > 0, last, running), atol=1e-5)
    np.testing.assert_array_equal(found.ended, ended)
