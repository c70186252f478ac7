"""Shuffles: every row once an epoch, and no place or neighbour preferred."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from inner_loops.minibatches import SHUFFLES, minibatch_rows, permutation


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize(("rows", "minibatches"), [(512, 4), (12, 3), (35, 5), (4, 4), (1, 1)])
def test_minibatches_cover_every_row_once_an_epoch(shuffle, rows, minibatches):
    deal = jax.jit(lambda key: minibatch_rows(key, rows, 3, minibatches, shuffle))
    dealt = np.asarray(deal(jax.random.key(0)))
    assert dealt.shape == (3 * minibatches, rows // minibatches)
    for epoch in dealt.reshape(3, rows):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(rows))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_epochs_and_keys_differ(shuffle):
    deal = jax.jit(lambda key: minibatch_rows(key, 512, 2, 1, shuffle))
    epochs, other = (np.asarray(deal(jax.random.key(seed))) for seed in (0, 1))
    assert np.mean(epochs[0] == epochs[1]) < 0.02 and np.mean(epochs == other) < 0.02


def drawn(shuffle: str, rows: int, count: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, rows, shuffle)))(keys))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_all_orders_of_four_rows_are_equally_likely(shuffle):
    orders = drawn(shuffle, 4, 12_000) @ np.asarray([64, 16, 4, 1])
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_no_row_prefers_a_place_or_a_neighbour(shuffle):
    """Chi-square over (row, place) and over the distance of two places' rows, 60 rows."""
    orders = drawn(shuffle, 60, 6_000)
    places = np.stack([np.bincount(column, minlength=60) for column in orders.T])
    # (60 - 1)^2 degrees of freedom: rows and columns both sum to the number of draws
    statistic = np.sum(np.square(places - 100.0) / 100.0)
    assert stats.chi2.sf(statistic, 59**2) > 1e-3
    steps = np.bincount(((orders[:, 1:] - orders[:, :-1]) % 60).reshape(-1), minlength=60)[1:]
    assert stats.chisquare(steps).pvalue > 1e-3


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(ValueError, match="10 samples cannot be dealt out evenly to 4 minibatches"):
        minibatch_rows(jax.random.key(0), 10, 1, 4)
    with pytest.raises(ValueError, match="unknown shuffle 'riffle': expected one of swap_or_not, sort"):
        permutation(jax.random.key(0), 10, "riffle")


def test_vmapped_equals_single():
    keys = jax.random.split(jax.random.key(5), 3)
    one = jax.jit(lambda key: permutation(key, 37, "swap_or_not"))
    np.testing.assert_array_equal(jax.vmap(one)(keys), jnp.stack([one(key) for key in keys]))
