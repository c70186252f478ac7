"""Batches that the host draws: the right ones, in advance, and the same whatever came before."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from inner_loops.data.labelled import NoisyDigits
from inner_loops.datarater import DataRater
from inner_loops.models import Classifier
from inner_loops.raters import FeatureRater
from inner_loops.tasks.taught_by_examples import TaughtByExamples
from metalab import devices
from metalab.components import component, number
from metalab.protocols import PyTree
from metalab.sweep.feed import Feed
from metalab.sweep.program import Compiler, OuterProgram
from outer_loops.fixed import Fixed
from outer_loops.meta_gradient import MetaGradient

DRAWN_BY: dict[float, list[str]] = {}  # names of the threads that drew, by weight


class Sum(NamedTuple):
    total: Array


@component
class Reader:
    """An outer loop that adds up what it is given."""

    weight: float = number(1.0, doc="of a batch")

    def init(self, key: Array) -> Sum:
        del key
        return Sum(jnp.zeros(()))

    def step(self, key: Array, state: Sum, data: PyTree) -> tuple[Sum, dict[str, Array]]:
        del key
        seen = jnp.sum(data["numbers"])
        return Sum(state.total + self.weight * seen), {"seen": seen}

    def meta_params(self, state: Sum) -> Array:
        return state.total

    def host_batches(self, rng: np.random.Generator) -> PyTree:
        DRAWN_BY.setdefault(float(self.weight), []).append(threading.current_thread().name)
        return {"numbers": rng.random(3, np.float32)}


def of_host(seed: int, step: int) -> float:
    return float(np.random.default_rng([seed, step]).random(3, np.float32).sum())


def program_of(outer: Any, berths: int = 1, seeds: int = 2, first: int = 0) -> OuterProgram:
    devices.configure()
    return OuterProgram(Compiler(quick=True), outer, berths, seeds, first)


def test_every_step_of_every_seed_has_its_own_batch_whatever_the_chunk() -> None:
    expected = [[of_host(seed, step) for step in range(4)] for seed in (3, 4)]
    for length in (1, 2, 4):
        program = program_of(Reader(), first=3)
        state, seen = program.begin()[0], []
        for start in range(0, 4, length):
            state, metrics = program.chunk(state, [start], length)
            seen.append(program.fetch(metrics)["seen"])
        np.testing.assert_allclose(np.concatenate(seen, axis=1), expected, rtol=1e-6)


def test_the_next_chunk_is_drawn_by_another_thread_and_used() -> None:
    program = program_of(Reader(weight=2.0))
    program.prepare(2)
    assert len(DRAWN_BY[2.0]) == 1  # an example: to compile, shapes are enough
    state, _ = program.chunk(program.begin()[0], [0], 2)
    program.chunk(state, [2], 2)
    assert program.compiler.count("chunk") == 1
    # What the first chunk took was drawn at once; what the second took was ready or in the making.
    in_advance = [name.startswith("feed") for name in DRAWN_BY[2.0]]
    assert any(in_advance)
    assert all(in_advance[in_advance.index(True) :])


def test_a_newcomer_in_a_berth_begins_with_the_first_batches() -> None:
    program = program_of(Reader(), berths=2, seeds=1)
    state, _ = program.chunk(program.begin()[0], [0, 0], 2)
    metrics = program.fetch(program.chunk(state, [2, 0], 2)[1])  # not what was asked for in advance
    expected = [[of_host(0, step) for step in steps] for steps in ((2, 3), (0, 1))]
    np.testing.assert_allclose(metrics["seen"], expected, rtol=1e-6)


def rated_digits() -> DataRater:
    return DataRater(
        rater=FeatureRater(hidden=4),
        model=Classifier(hidden=4),
        stream=NoisyDigits(),
        batch_size=4,
        outer_batch_size=4,
        validation_size=8,
    )


@pytest.mark.parametrize("kind", [Fixed, MetaGradient])
def test_training_on_a_large_corpus_never_waits_for_the_host(kind, monkeypatch) -> None:
    learner = rated_digits()
    outer = kind(inner=learner, tasks=TaughtByExamples(stream=learner.stream), truncation=2, num_slots=3)
    assert outer.host_batches(np.random.default_rng(0)) is None  # all of it fits on the device
    monkeypatch.setattr("inner_loops.data.base._ON_DEVICE", 0)
    data = outer.host_batches(np.random.default_rng(0))
    assert data["train"].level.shape == (3, 2, 4)
    state = jax.eval_shape(outer.init, jax.random.key(0))

    def callbacks(data: PyTree) -> int:
        return str(jax.make_jaxpr(outer.step)(jax.random.key(0), state, data)).count("pure_callback")

    assert callbacks(None) > 0
    assert callbacks(data) == 0


def test_an_update_on_given_examples_is_the_update_on_drawn_ones(monkeypatch) -> None:
    learner = rated_digits()
    meta = learner.init_meta(jax.random.key(0))
    key = jax.random.key(2)
    state = learner.init(jax.random.key(1), meta, TaughtByExamples(stream=learner.stream).sample(key))
    monkeypatch.setattr("inner_loops.data.base._ON_DEVICE", 0)
    batches = learner.host_batches(np.random.default_rng(0), 1)
    given, outs = learner.step(key, meta, state, jax.tree.map(lambda leaf: leaf[0], batches))
    rows = iter((batches["train"], batches["outer"]))
    monkeypatch.setattr(
        "inner_loops.data.base._drawn", lambda *_: jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), next(rows))
    )
    drawn, _ = learner.step(key, meta, state, None)
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(drawn), strict=True):
        np.testing.assert_array_equal(one, other)
    outs = jax.tree.map(lambda leaf: leaf[None], outs)
    judged = [learner.evaluate(key, meta, *rest)[1] for rest in ((given, outs, batches), (drawn, outs, None))]
    assert float(judged[0].score) == float(judged[1].score)


def test_a_loop_that_draws_by_itself_is_fed_nothing() -> None:
    learner = rated_digits()
    outer = Fixed(inner=learner, tasks=TaughtByExamples(stream=learner.stream))
    feed = Feed(outer, [0], lambda tree: tree)
    assert not feed.needed
    assert feed.take([0], 2) is None
