from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.components import as_arrays
from metalab.trees import all_finite, group_by_structure, lane, select, stack
from tests.toys import Chaser, Targets


def test_select_by_a_scalar_and_by_slot() -> None:
    ones, zeros = {"a": jnp.ones((3, 2)), "b": jnp.ones(3)}, {"a": jnp.zeros((3, 2)), "b": jnp.zeros(3)}
    chex.assert_trees_all_equal(select(jnp.asarray(True), ones, zeros), ones)
    picked = select(jnp.asarray([True, False, True]), ones, zeros)
    np.testing.assert_array_equal(picked["a"], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(picked["b"], [1, 0, 1])


@pytest.mark.parametrize(
    ("leaf", "finite"),
    [
        (jnp.asarray([1.0, jnp.nan]), False),
        (jnp.asarray([jnp.inf]), False),
        (jnp.asarray([1.0, -2.0]), True),
        (jnp.asarray([1, 2]), True),
        (jnp.asarray([True]), True),
    ],
)
def test_all_finite_reads_inexact_leaves(leaf: jax.Array, finite: bool) -> None:
    assert bool(all_finite({"sound": jnp.zeros(2), "leaf": leaf})) is finite


def test_all_finite_of_nothing_and_of_keys() -> None:
    assert bool(all_finite(()))
    assert bool(all_finite({"key": jax.random.key(0)}))


def test_stack_and_lane_are_inverse() -> None:
    points = [as_arrays(Chaser(gain=gain)) for gain in (0.1, 0.2, 0.3)]
    lanes = stack(points)
    np.testing.assert_allclose(lanes.gain, [0.1, 0.2, 0.3])
    for index, point in enumerate(points):
        chex.assert_trees_all_equal(lane(lanes, index), point)


def test_stack_refuses_other_programs() -> None:
    with pytest.raises(ValueError, match="2 different structures: they are different programs"):
        stack([Targets(lifetime=3), Targets(lifetime=4)])


def test_groups_are_programs_in_the_order_met() -> None:
    points = [Targets(lifetime=3), Targets(lifetime=4), Targets(lifetime=3, spread=0.5)]
    groups = list(group_by_structure(points, lambda point: point).values())
    assert groups == [[points[0], points[2]], [points[1]]]
