from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.components import as_arrays, component
from metalab.contracts import check_outer
from metalab.optimizers import Adam, Sgd
from metalab.protocols import Evaluation
from outer_loops.meta_gradient import MetaGradient
from tests.toys import Chaser, Targets

RATE = 0.05


def stepped(outer: MetaGradient, steps: int = 1):
    """States and metrics after every outer step."""
    outer, found = as_arrays(outer), []
    state = outer.init(jax.random.key(0))
    step = jax.jit(outer.step)
    for number in range(steps):
        state, metrics = step(jax.random.key(number + 1), state, None)
        found.append((state, metrics))
    return found


def test_the_updates_of_the_slots_are_averaged_not_their_gradients() -> None:
    # Two truncations of one update from x = 0 at gain g: loss c^2 (1 - g)^2 with target c, so the gradient is
    # -2 c^2 (1 - g): four times as large for the larger of two targets 1 and 2. Adam's first update is the
    # rate for each of them, and so is its mean; averaged gradients would give the same here, so descent by
    # SGD with each gradient clipped to 1 tells them apart: both gradients exceed 1, and the mean moves by the
    # rate.
    @component
    class Two(Targets):
        def sample(self, key):
            drawn = Targets(spread=0.5, lifetime=4).sample(key)
            return drawn._replace(params=jnp.where(drawn.params > 1.0, 2.0, 1.0))

    for optimizer in (Adam(learning_rate=RATE), Sgd(learning_rate=RATE, max_grad_norm=1.0)):
        outer = MetaGradient(
            inner=Chaser(gain=0.1),
            tasks=Two(),
            truncation=1,
            num_slots=4,
            optimizer=optimizer,
            per_slot_optimizer=True,
        )
        (state, metrics) = stepped(outer)[0]
        np.testing.assert_allclose(state.meta["gain"], 0.1 + RATE, rtol=1e-5)
        assert float(metrics["slot_grad_norm_max"]) > 1.0


def test_every_slot_has_an_optimizer_state_that_outlives_its_lifetimes() -> None:
    outer = MetaGradient(
        inner=Chaser(), tasks=Targets(lifetime=2), truncation=2, num_slots=3, per_slot_optimizer=True
    )
    state = stepped(outer, steps=3)[-1][0]
    counts = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.dtype == jnp.int32]
    assert [leaf.tolist() for leaf in counts] == [[3, 3, 3]]


@component
class BreaksBeyondOne(Chaser):
    """Its loss is not finite where its target lies above 1."""

    def evaluate(self, key, meta, state, outs, batch):
        state, evaluation = Chaser.evaluate(self, key, meta, state, outs, batch)
        assert evaluation.loss is not None
        # The outer loop masks the loss; its slope is 0 times infinity.
        loss = evaluation.loss * jnp.where(state.target > 1.0, jnp.inf, 1.0)
        return state, Evaluation(loss, evaluation.score, evaluation.metrics)


def test_a_slot_that_is_not_finite_has_no_say_and_keeps_its_optimizer_state() -> None:
    outer = MetaGradient(
        inner=BreaksBeyondOne(gain=0.1),
        tasks=Targets(spread=0.5),
        truncation=1,
        num_slots=6,
        optimizer=Adam(learning_rate=RATE),
        per_slot_optimizer=True,
    )
    state, _ = stepped(outer)[0]
    np.testing.assert_allclose(state.meta["gain"], 0.1 + RATE, rtol=1e-5)
    counts = next(leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.dtype == jnp.int32)
    np.testing.assert_array_equal(counts, state.slots.state.target <= 1.0)
    assert 0 < int(counts.sum()) < 6


def test_stratified_first_ages_are_spaced_evenly() -> None:
    outer = MetaGradient(inner=Chaser(), tasks=Targets(lifetime=12), num_slots=4, stratify=True)
    assert outer.init(jax.random.key(0)).slots.age.tolist() == [0, 3, 6, 9]


def test_an_optimizer_for_each_slot_refuses_a_second_place_to_clip() -> None:
    with pytest.raises(ValueError, match=r"max_slot_norm beside per_slot_optimizer.*max_grad_norm"):
        MetaGradient(inner=Chaser(), tasks=Targets(), max_slot_norm=1.0, per_slot_optimizer=True)


def test_it_keeps_the_contract_with_an_optimizer_for_each_slot() -> None:
    check_outer(MetaGradient(inner=Chaser(), tasks=Targets(), num_slots=2, per_slot_optimizer=True))
