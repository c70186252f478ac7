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


@given(seed=st.integers(0, 2**20), chance=st.floats(0.0, 1.0))
def test_equals_counting_step_by_step(seed, chance):
    rng = np.random.default_rng(seed)
    running, last, ended = np.zeros(3), np.zeros(3), np.zeros(3)
    found = no_episodes(3)
    for _ in range(3):
        score, done = rng.normal(size=(6, 3)).astype(np.float32), rng.random((6, 3)) < chance
        found = jax.jit(count_episodes)(found, score, done)
        for t in range(6):
            running += score[t]
            last, ended = np.where(done[t], running, last), ended + done[t]
            running = np.where(done[t], 0.0, running)
    np.testing.assert_allclose(found.running, running, atol=1e-5)
    np.testing.assert_allclose(found.last, last, atol=1e-5)
    np.testing.assert_array_equal(found.ended, ended)
