"""Draws as rows: the numbers of ``jax.random``, for lanes with keys of their own as well."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from inner_loops import draws

SHAPE = (2, 3, 4)
PAIRS: dict[str, tuple[Any, Any]] = {
    "uniform": (
        lambda key: draws.uniform(key, SHAPE, -1.0, 2.0),
        lambda key: jax.random.uniform(key, SHAPE, minval=-1.0, maxval=2.0),
    ),
    "normal": (lambda key: draws.normal(key, SHAPE), lambda key: jax.random.normal(key, SHAPE)),
    "randint": (
        lambda key: draws.randint(key, SHAPE, 3, 99),
        lambda key: jax.random.randint(key, SHAPE, 3, 99),
    ),
    "split": (
        lambda key: jax.random.key_data(draws.split(key, SHAPE)),
        lambda key: jax.random.key_data(jax.random.split(key, SHAPE)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_row_holds_the_numbers_of_the_array(name):
    ours, theirs = PAIRS[name]
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.vmap(ours)(keys)
    assert found.shape[:4] == (2, *SHAPE)
    np.testing.assert_array_equal(found, jax.vmap(theirs)(keys))
