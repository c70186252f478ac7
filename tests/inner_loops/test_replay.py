"""The ring: what it holds, what it draws, and that it is written in place."""

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.replay import Replay, empty_replay


def filled(capacity: int, batches: list[list[int]], ignored: int = 0) -> Replay:
    replay = empty_replay({"x": jnp.zeros((), jnp.int32)}, capacity, ignored)
    for rows in batches:
        replay = replay.add({"x": jnp.asarray(rows, jnp.int32)})
    return replay


def drawn(replay: Replay, draws: int = 400) -> set[int]:
    return set(np.asarray(replay.sample(jax.random.key(0), (draws,))["x"]).tolist())


def test_the_newest_rows_replace_the_oldest():
    """Capacity 6, batches of 2: the fourth batch begins the ring anew."""
    replay = filled(6, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(replay.data["x"], [1, 2, 3, 4, 5, 6])
    assert (int(replay.position), int(replay.size)) == (0, 6)
    replay = replay.add({"x": jnp.asarray([7, 8], jnp.int32)})
    np.testing.assert_array_equal(replay.data["x"], [7, 8, 3, 4, 5, 6])
    assert (int(replay.position), int(replay.size)) == (2, 6)
    assert drawn(replay) == {3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize("counts", [True, False])
def test_rows_that_do_not_count_leave_the_ring_as_it_is(counts):
    """Also where they would overwrite what the full ring holds."""
    replay = filled(4, [[1, 2], [3, 4]])
    rows = {"x": jnp.asarray([5, 6], jnp.int32)}
    chex.assert_trees_all_equal(replay.add(rows, jnp.asarray(counts)), replay.add(rows) if counts else replay)


def test_only_what_was_added_is_drawn():
    assert drawn(filled(8, [[1, 2], [3, 4]])) == {1, 2, 3, 4}


def test_the_first_rows_can_be_ignored_until_they_are_overwritten():
    """Three rows are ignored: after two batches one row may be drawn, after four all but the ignored ones."""
    batches = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    assert int(filled(8, batches[:1], ignored=3).size) == -1
    assert drawn(filled(8, batches[:2], ignored=3)) == {4}
    assert drawn(filled(8, batches[:4], ignored=3)) == {4, 5, 6, 7, 8}
    assert drawn(filled(8, batches[:5], ignored=3)) == {4, 5, 6, 7, 8, 9, 10}
    assert drawn(filled(8, batches, ignored=3)) == {5, 6, 7, 8, 9, 10, 11, 12}


def test_draws_are_uniform():
    replay = filled(8, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])  # 0 and 1 are gone, 8 and 9 in their place
    counts = np.bincount(np.asarray(replay.sample(jax.random.key(1), (100, 800))["x"]).reshape(-1))
    np.testing.assert_array_equal(counts[:2], 0)
    # 80,000 draws of eight rows: 10,000 each, standard deviation 94
    np.testing.assert_allclose(counts[2:], 10_000, atol=400)


def test_an_empty_ring_can_be_asked_without_harm():
    assert drawn(empty_replay({"x": jnp.zeros((), jnp.int32)}, 4)) == {0}


def test_dtypes_and_shapes_are_kept():
    example = {"obs": jnp.zeros((2, 3), jnp.uint8), "action": jnp.zeros((), jnp.int32), "r": jnp.zeros(())}
    replay = empty_replay(example, 8)
    replay = replay.add(jax.tree.map(lambda leaf: jnp.ones((4, *leaf.shape), leaf.dtype), example))
    sample = replay.sample(jax.random.key(0), (5, 7))
    chex.assert_trees_all_equal_shapes_and_dtypes(
        sample, jax.tree.map(lambda leaf: jnp.zeros((5, 7, *leaf.shape), leaf.dtype), example)
    )
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(replay))


def test_rows_of_another_dtype_are_refused():
    with pytest.raises(AssertionError, match="dtype"):
        filled(4, []).add({"x": jnp.zeros(2)})


def test_a_capacity_that_would_split_a_batch_is_refused_with_one_that_does_not():
    with pytest.raises(ValueError, match=r"capacity \(10\) must be a multiple .* \(4\); 12 is one"):
        filled(10, [[1, 2, 3, 4]])


def test_vmapped_equals_single():
    """Two rings at different positions."""
    keys = jax.random.split(jax.random.key(0), 2)
    rings = [filled(8, [[1, 2]]), filled(8, [[1, 2], [3, 4], [5, 6]])]
    rows = {"x": jnp.asarray([[7, 8], [9, 10]], jnp.int32)}
    both = jax.vmap(Replay.add)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *rings), rows)
    sampled = jax.vmap(lambda ring, key: ring.sample(key, (5,)))(both, keys)
    for index, ring in enumerate(rings):
        single = ring.add(jax.tree.map(lambda leaf, at=index: leaf[at], rows))
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, at=index: leaf[at], both), single)
        chex.assert_trees_all_equal(
            jax.tree.map(lambda leaf, at=index: leaf[at], sampled), single.sample(keys[index], (5,))
        )


@pytest.mark.parametrize(("lanes", "ends"), [(None, None), (3, None), (3, 2)])
def test_a_loop_of_writes_and_draws_never_copies_the_ring(lanes, ends):
    """The compiled loop keeps no second ring, and no instruction of it copies or selects a whole one."""
    capacity, width, batch = 4096, 24, 16

    def live(replay: Replay, rows: jax.Array) -> tuple[Replay, jax.Array]:
        def body(replay: Replay, xs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Replay, jax.Array]:
            replay = replay.add(xs[0], None if ends is None else xs[2] < ends)
            return replay, jnp.sum(replay.sample(xs[1], (8,)))

        keys = jax.random.split(jax.random.key(0), rows.shape[0])
        return jax.lax.scan(body, replay, (rows, keys, jnp.arange(rows.shape[0])))

    replay, rows = empty_replay(jnp.zeros(width), capacity), jnp.ones((5, batch, width))
    if lanes:
        live = jax.vmap(live)
        replay, rows = jax.tree.map(lambda leaf: jnp.stack([leaf] * lanes), (replay, rows))
    compiled: Any = jax.jit(live, donate_argnums=0).lower(replay, rows).compile()
    ring_bytes = (lanes or 1) * capacity * width * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * ring_bytes
    shape = ",".join(str(size) for size in ((lanes,) if lanes else ()) + (capacity, width))
    whole = re.compile(rf"= f32\[{shape}\]\S* (copy|select|fusion)\(.*")
    moved = [line for line in compiled.as_text().splitlines() if whole.search(line)]
    # a fusion whose result is the ring must be the write itself
    assert all("scatter" in line or "dynamic-update-slice" in line for line in moved), moved
