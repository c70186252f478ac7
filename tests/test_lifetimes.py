from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.components import component, static
from metalab.lifetimes import Slots, advance, born, init_memory, keep, rebirth, unroll
from metalab.protocols import Task
from tests.toys import Chaser, CountingTargets, Targets

META = {"gain": jnp.asarray(0.3)}


def newborn(chaser: Chaser, target: float = 1.0):
    return chaser.init(jax.random.key(0), META, Task(jnp.asarray(target), jnp.asarray(4, jnp.int32)))


def test_unroll_equals_a_python_loop() -> None:
    chaser = Chaser(noise=0.5)
    key = jax.random.key(7)
    state, outs = unroll(chaser, key, META, newborn(chaser), 5)
    looped, xs = newborn(chaser), []
    for step_key in jax.random.split(key, 5):
        looped, out = chaser.step(step_key, META, looped, None)
        xs.append(out.metrics["x"])
    chex.assert_trees_all_close(state, looped, rtol=1e-6)
    np.testing.assert_allclose(outs.metrics["x"], jnp.stack(xs), rtol=1e-6)


def test_unroll_of_nothing_changes_nothing() -> None:
    state, outs = unroll(Chaser(), jax.random.key(0), META, newborn(Chaser()), 0)
    chex.assert_trees_all_equal(state, newborn(Chaser()))
    assert outs.metrics["x"].shape == (0,)


@pytest.mark.parametrize("remaining", [0, 2, 5, 9])
def test_updates_beyond_the_end_of_life_freeze_and_report_zeros(remaining: int) -> None:
    chaser = Chaser(noise=0.5)
    key = jax.random.key(7)
    whole, all_outs = unroll(chaser, key, META, newborn(chaser), 5)
    state, outs = unroll(chaser, key, META, newborn(chaser), 5, remaining=jnp.asarray(remaining))
    lived = min(remaining, 5)
    assert int(state.updates) == lived
    np.testing.assert_array_equal(outs.metrics["x"][:lived], all_outs.metrics["x"][:lived])
    np.testing.assert_array_equal(outs.metrics["x"][lived:], np.zeros(5 - lived))
    np.testing.assert_array_equal(outs.record[lived:], np.zeros(5 - lived))
    if lived == 5:
        chex.assert_trees_all_equal(state, whole)
    else:
        expected = all_outs.metrics["x"][lived - 1] if lived else 0.0
        assert float(state.x) == float(expected)


def test_batches_reach_their_update() -> None:
    @component
    class Adds:
        def step(self, key, meta, state, batch):
            return Chaser().step(key, meta, state._replace(target=batch), None)

    batches = jnp.asarray([1.0, 2.0])
    state, outs = unroll(Adds(), jax.random.key(0), {"gain": jnp.asarray(0.5)}, newborn(Chaser()), 2, batches)  # pyright: ignore[reportArgumentType]
    # 0 + (1 - 0)/2 = 0.5, then 0.5 + (2 - 0.5)/2 = 1.25.
    np.testing.assert_allclose(outs.metrics["x"], [0.5, 1.25])
    assert float(state.target) == 2.0


@component
class Remembers:
    """A chaser that marks what a rematerialised update must store."""

    def step(self, key, meta, state, batch):
        state, out = Chaser().step(key, meta, state, batch)
        return state._replace(x=keep(jnp.tanh(state.x))), out


@pytest.mark.parametrize("inner", [Chaser(noise=0.2), Remembers()], ids=["chaser", "with keep"])
def test_rematerialisation_changes_neither_value_nor_gradient(inner) -> None:
    def loss(meta, remat: bool):
        start = newborn(Chaser())
        state, outs = unroll(inner, jax.random.key(1), meta, start, 4, remaining=jnp.asarray(3), remat=remat)
        return jnp.square(state.target - state.x) + jnp.sum(outs.metrics["x"])

    plain = jax.value_and_grad(loss)(META, False)
    remat = jax.value_and_grad(loss)(META, True)
    chex.assert_trees_all_close(plain, remat, rtol=1e-6)
    assert float(plain[1]["gain"]) != 0.0


def test_the_gradient_through_an_unroll_is_the_hand_computed_one() -> None:
    # After n noiseless updates the loss is (1 - g)^(2n); its derivative is -2n (1 - g)^(2n - 1).
    def loss(meta):
        state, _ = unroll(Chaser(), jax.random.key(1), meta, newborn(Chaser()), 3)
        return jnp.square(state.target - state.x)

    np.testing.assert_allclose(jax.grad(loss)(META)["gain"], -6 * 0.7**5, rtol=1e-5)


@jax.jit
def thousand_born(key: jax.Array) -> Slots:
    return born(Chaser(), Targets(spread=0.5, lifetime=10), key, META, (), 1000)


def test_first_ages_are_uniform_over_the_lifetime() -> None:
    slots = thousand_born(jax.random.key(0))
    counts = np.bincount(np.asarray(slots.age), minlength=10)
    assert counts.size == 10  # 0..9: no slot is born dead
    # Each count is binomial(1000, 1/10): mean 100, standard deviation 9.5; 5 deviations.
    assert np.all(np.abs(counts - 100) < 48)
    assert slots.age.dtype == slots.lifetime.dtype == jnp.int32
    # An early age shortens the first life; the learner itself is newborn.
    np.testing.assert_array_equal(slots.state.updates, np.zeros(1000))
    assert len(np.unique(np.asarray(slots.state.target))) > 900


def test_without_stagger_all_slots_are_in_phase() -> None:
    slots = born(Chaser(), Targets(), jax.random.key(0), META, (), 5, stagger=False)
    np.testing.assert_array_equal(slots.age, np.zeros(5))


def test_only_the_dead_are_reborn() -> None:
    tasks = Targets(spread=0.5, lifetime=4)
    slots = born(Chaser(), tasks, jax.random.key(0), META, (), 4, stagger=False)
    lived = slots.state._replace(x=jnp.arange(4.0), updates=jnp.full(4, 3, jnp.int32))
    slots = slots._replace(state=lived, age=jnp.asarray([1, 4, 2, 4], jnp.int32))
    after = rebirth(Chaser(), tasks, jax.random.key(1), META, (), slots)
    np.testing.assert_array_equal(after.age, [1, 0, 2, 0])
    np.testing.assert_array_equal(after.state.x, [0.0, 0.0, 2.0, 0.0])
    np.testing.assert_array_equal(after.state.updates, [3, 0, 3, 0])
    same = np.asarray(after.state.target) == np.asarray(slots.state.target)
    np.testing.assert_array_equal(same, [True, False, True, False])


def test_the_dead_of_one_birthday_get_tasks_of_their_own() -> None:
    tasks = Targets(spread=0.5)
    slots = born(Chaser(), tasks, jax.random.key(0), META, (), 3, stagger=False)
    dead = slots._replace(age=slots.lifetime)
    after = rebirth(Chaser(), tasks, jax.random.key(1), META, (), dead)
    assert len(np.unique(np.asarray(after.state.target))) == 3


def test_advance_stops_at_the_end_and_ends_the_broken() -> None:
    slots = born(Chaser(), Targets(lifetime=4), jax.random.key(0), META, (), 3, stagger=False)
    slots = slots._replace(age=jnp.asarray([0, 3, 0], jnp.int32))
    later = advance(slots, slots.state, 2, None)
    np.testing.assert_array_equal(later.age, [2, 4, 2])
    broken = advance(slots, slots.state, 2, jnp.asarray([False, False, True]))
    np.testing.assert_array_equal(broken.age, [2, 4, 4])
    assert broken.age.dtype == jnp.int32


def test_adaptive_tasks_give_tickets_and_have_memory() -> None:
    tasks = CountingTargets()
    memory = init_memory(tasks)
    slots = born(Chaser(), tasks, jax.random.key(0), META, memory, 3)
    np.testing.assert_array_equal(slots.ticket, [2.0, 2.0, 2.0])
    assert init_memory(Targets()) == ()
    assert born(Chaser(), Targets(), jax.random.key(0), META, (), 3).ticket == ()


def test_lifetimes_of_different_lengths_live_side_by_side() -> None:
    @component
    class Mixed:
        longest: int = static(9, doc="inner updates")

        def sample(self, key: jax.Array) -> Task:
            return Task(jnp.ones(()), jax.random.randint(key, (), 1, self.longest + 1, jnp.int32))

    slots = born(Chaser(), Mixed(), jax.random.key(0), META, (), 64)
    assert len(np.unique(np.asarray(slots.lifetime))) > 4
    assert np.all(np.asarray(slots.age) < np.asarray(slots.lifetime))
