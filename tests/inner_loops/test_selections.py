from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inner_loops
from inner_loops.selections import (
    LeastCorrupted,
    LeastPerplexing,
    RandomDiscard,
    Softmax,
    TopRated,
    candidates_for,
)
from metalab.catalogue import resolve

VALUES = jnp.asarray([0.3, -1.0, 2.0, 0.0, 0.9, -0.5, 1.5, 0.1])


@pytest.mark.parametrize("kind", sorted(inner_loops.CATALOGUE["selection"]))
def test_weights_sum_to_1_and_no_example_is_taken_twice(kind: str) -> None:
    selection = resolve(kind, "selection")()
    size = selection.candidates(4)
    rows, weights = selection.choose(jax.random.key(0), jnp.resize(VALUES, size), 4)
    assert len(set(rows.tolist())) == 4
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (TopRated(discard=0.5), {2, 6, 4, 0}),
        (LeastPerplexing(discard=0.5), {1, 5, 3, 7}),
        (LeastCorrupted(discard=0.5), {1, 5, 3, 7}),
    ],
)
def test_the_best_of_the_candidates_are_kept(selection, expected) -> None:
    assert selection.candidates(4) == 8
    rows, weights = selection.choose(jax.random.key(0), VALUES, 4)
    assert set(rows.tolist()) == expected
    np.testing.assert_allclose(weights, 0.25)


def test_random_discard_takes_every_candidate_equally_often() -> None:
    choose = jax.vmap(lambda key: RandomDiscard(discard=0.5).choose(key, VALUES, 4)[0])
    rows = choose(jax.random.split(jax.random.key(0), 2000))
    # Each of 8 in half of 2000 draws: standard deviation sqrt(2000 / 4) = 22.
    np.testing.assert_allclose(np.bincount(np.asarray(rows).reshape(-1)), 1000, atol=100)


def test_softmax_weighs_by_the_rating() -> None:
    _, weights = Softmax().choose(jax.random.key(0), jnp.log(jnp.asarray([1.0, 3.0])), 2)
    np.testing.assert_allclose(weights, [0.25, 0.75], rtol=1e-6)


@pytest.mark.parametrize(("discard", "expected"), [(0.0, 32), (0.1, 36), (0.5, 64), (0.75, 128), (0.9, 320)])
def test_candidates_are_as_many_as_leave_a_batch(discard: float, expected: int) -> None:
    assert candidates_for(32, discard) == expected
