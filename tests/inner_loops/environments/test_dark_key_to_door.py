"""Key-to-door rooms: payment once each and in order, optimum, exact returns, and the split of pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.environments.dark_key_to_door import DarkKeyToDoor, KeyToDoorParams
from inner_loops.tasks.key_to_door_rooms import KeyToDoorRooms
from tests.inner_loops.environments.test_dark_room import DOWN, LEFT, RIGHT, UP, play

ROOM = DarkKeyToDoor(size=3, horizon=8, start="centre")  # cells 0 1 2 / 3 4 5 / 6 7 8


def pair(key: int, door: int) -> KeyToDoorParams:
    return KeyToDoorParams(jnp.asarray(key, jnp.int32), jnp.asarray(door, jnp.int32))


def test_key_and_door_pay_once_and_in_order():
    """Door at 5 first, without the key: nothing. Key at 3: 1. The key again: nothing. Door: 1, the end."""
    steps = play(ROOM, pair(3, 5), [RIGHT, LEFT, LEFT, 0, RIGHT, RIGHT, LEFT])
    assert [float(step[1]) for step in steps] == [0, 0, 1, 0, 0, 1, 1]  # the last one is a new episode's key
    assert [bool(step[2]) for step in steps] == [False] * 5 + [True, False]
    goes_on = DarkKeyToDoor(size=3, horizon=8, start="centre", ends_at_door=False)
    steps = play(goes_on, pair(3, 5), [LEFT, RIGHT, RIGHT, LEFT, RIGHT, LEFT, LEFT, 0])
    assert [float(step[1]) for step in steps] == [1, 0, 1, 0, 0, 0, 0, 0]
    assert [bool(step[3]) for step in steps] == [False] * 7 + [True] and not any(step[2] for step in steps)


def test_key_and_door_in_one_cell_take_two_steps():
    steps = play(ROOM, pair(1, 1), [UP, 0])
    assert [float(step[1]) for step in steps] == [1.0, 1.0]


def test_a_source_may_see_that_it_has_the_key():
    room = DarkKeyToDoor(size=3, horizon=8, start="centre", sees_key=True)
    steps = play(room, pair(3, 8), [DOWN, UP, LEFT, DOWN])
    assert [int(step[4]) for step in steps] == [7, 4, 9 + 3, 9 + 6]
    assert (room.num_states, ROOM.num_states) == (18, 9)


def test_the_optimum_is_what_the_expert_reaches():
    """Every pair of a 3 x 3 room with a horizon that is too short for some; two actions to a cell."""
    room = DarkKeyToDoor(size=3, horizon=4, start="random", sees_key=True)
    pairs = KeyToDoorParams(*jnp.divmod(jnp.arange(81), 9))

    def reached(params: KeyToDoorParams) -> jax.Array:
        def episode(cell: jax.Array) -> jax.Array:
            noise = (cell + 0.5) / 9
            state = room.reset_env(noise, params)[1]

            def step(now, _):
                state, ended = now
                action = room.expert_action(params, state)
                _, state, reward, terminated, _, _ = room.step_env((), state, action, params)
                return (state, ended | terminated), jnp.where(ended, 0.0, reward)

            return jnp.sum(jax.lax.scan(step, (state, jnp.zeros((), bool)), length=4)[1])

        return jnp.mean(jax.vmap(episode)(jnp.arange(9)))

    best, found = jax.jit(lambda: (jax.vmap(room.optimal_return)(pairs), jax.vmap(reached)(pairs)))()
    np.testing.assert_allclose(best, found, rtol=1e-6)
    assert best.min() < 2.0 and best.max() == 2.0


@pytest.mark.parametrize("sees_key", [False, True])
def test_the_exact_return_is_that_of_episodes(sees_key: bool):
    """A random policy's, against 4000 episodes: within four standard errors."""
    room, params = DarkKeyToDoor(size=3, horizon=8, sees_key=sees_key), pair(2, 6)
    logits = jax.random.normal(jax.random.key(1), (room.num_states, 5))

    def episode(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 9)
        obs, state = room.reset(keys[0], params)

        def step(now, key):
            obs, state, ended = now
            action = jax.random.categorical(key, logits[obs])
            obs, state, reward, terminated, _, _ = room.step_env((), state, action, params)
            return (obs, state, ended | terminated), jnp.where(ended, 0.0, reward)

        return jnp.sum(jax.lax.scan(step, (obs, state, jnp.zeros((), bool)), keys[1:])[1])

    returns = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 4000)))
    exact = float(jax.jit(room.exact_return)(params, jax.nn.softmax(logits)))
    assert abs(returns.mean() - exact) < 4 * returns.std() / np.sqrt(4000)


@given(size=st.integers(2, 5), share=st.floats(0.0, 1.0), split_seed=st.integers(0, 1000))
def test_no_held_out_pair_is_trained_on(size: int, share: float, split_seed: int):
    held_out = 1 + int(share * (size**4 - 2))
    parts = [
        KeyToDoorRooms(part=part, size=size, held_out=held_out, split_seed=split_seed).pairs.tolist()
        for part in ("train", "held_out", "all")
    ]
    assert not set(parts[0]) & set(parts[1]) and len(parts[1]) == held_out
    assert sorted(parts[0] + parts[1]) == sorted(parts[2]) == list(range(size**4))


def test_a_set_is_the_pairs_in_turn():
    tasks = KeyToDoorRooms(size=2, held_out=3, part="held_out")
    found = tasks.sample_set(jax.random.key(0), 7).params.env_params
    np.testing.assert_array_equal(found.key * 4 + found.door, np.resize(tasks.pairs, 7))
    assert tasks.num_tasks == 3 and KeyToDoorRooms().num_tasks == 5561
