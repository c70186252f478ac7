from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from metalab.components import component
from metalab.contracts import ContractError, check_inner, check_outer
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from outer_loops.fixed import Fixed
from outer_loops.meta_gradient import MetaGradient
from tests.toys import Chaser, CountingTargets, Targets


@component
class Table:
    """A learner whose state is a table; subclasses break one promise each."""

    def init_meta(self, key: jax.Array) -> PyTree:
        return {"rate": jax.random.uniform(key)}

    def init(self, key: jax.Array, meta: PyTree, task: Task) -> PyTree:
        return {"y": jnp.zeros((3, 2)), "age": jnp.zeros((), jnp.int32)}

    def step(self, key: jax.Array, meta: PyTree, state: PyTree, batch: PyTree) -> Any:
        return {"y": state["y"] + meta["rate"], "age": state["age"] + 1}, StepOut(metrics={})

    def evaluate(self, key: jax.Array, meta: PyTree, state: PyTree, outs: StepOut, batch: PyTree) -> Any:
        return state, Evaluation(jnp.sum(state["y"]), -jnp.sum(state["y"]), {})


@component
class Narrows(Table):
    def step(self, key, meta, state, batch):
        state, out = Table.step(self, key, meta, state, batch)
        return state | {"y": state["y"].astype(jnp.float16)}, out


@component
class Reshapes(Table):
    def evaluate(self, key, meta, state, outs, batch):
        return state | {"y": state["y"].T}, Table.evaluate(self, key, meta, state, outs, batch)[1]


@component
class Grows(Table):
    def step(self, key, meta, state, batch):
        state, out = Table.step(self, key, meta, state, batch)
        return state | {"extra": jnp.zeros(())}, out


@component
class Forgets(Table):
    def step(self, key, meta, state, batch):
        state, out = Table.step(self, key, meta, state, batch)
        return {"y": state["y"]}, out


@component
class BornWeak(Table):
    def init(self, key, meta, task):
        return Table.init(self, key, meta, task) | {"age": jnp.asarray(0)}


@component
class WeakMeta(Table):
    def init_meta(self, key):
        return {"rate": jnp.asarray(0.1)}


@component
class ManyLosses(Table):
    def evaluate(self, key, meta, state, outs, batch):
        return state, Evaluation(jnp.sum(state["y"], axis=0), jnp.sum(state["y"]), {})


@component
class ManyScores(Table):
    def evaluate(self, key, meta, state, outs, batch):
        return state, Evaluation(None, state["y"][:, 0], {})


@component
class CountsScore(Table):
    def evaluate(self, key, meta, state, outs, batch):
        return state, Evaluation(None, state["age"], {})


@component
class WideMetric(Table):
    def step(self, key, meta, state, batch):
        return Table.step(self, key, meta, state, batch)[0], StepOut(metrics={"rows": state["y"][:, 0]})


@component
class Raises(Table):
    def step(self, key, meta, state, batch):
        return {"y": state["y"] @ state["y"], "age": state["age"]}, StepOut(metrics={})


@component
class NoPair(Table):
    def step(self, key, meta, state, batch):
        return state


@component
class NoStepOut(Table):
    def step(self, key, meta, state, batch):
        return state, {"loss": jnp.zeros(())}


@component
class Mute(Table):
    def assess(self, key, meta, state):
        return {"score": jnp.zeros(())}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Narrows(), "inner loop 'Narrows': state['y'] is float32[3,2] at birth and float16[3,2] after step"),
        (
            Reshapes(),
            "inner loop 'Reshapes': state['y'] is float32[3,2] at birth and float32[2,3] after evaluate",
        ),
        (Grows(), "inner loop 'Grows': state['extra'] is missing at birth and float32[] after step"),
        (Forgets(), "inner loop 'Forgets': state['age'] is int32[] at birth and missing after step"),
        (BornWeak(), "inner loop 'BornWeak': state['age'] is int32[] (weakly typed) at birth"),
        (WeakMeta(), "inner loop 'WeakMeta': meta-parameters['rate'] is float32[] (weakly typed) at birth"),
        (ManyLosses(), "inner loop 'ManyLosses': loss of evaluate is float32[2], expected float32[]"),
        (ManyScores(), "inner loop 'ManyScores': score of evaluate is float32[3], expected float32[]"),
        (CountsScore(), "inner loop 'CountsScore': score of evaluate is int32[], expected float32[]"),
        (WideMetric(), "inner loop 'WideMetric': metric 'rows' of step is float32[3], expected a scalar"),
        (Raises(), "inner loop 'Raises': step fails: TypeError: dot_general requires"),
        (NoPair(), "inner loop 'NoPair': step returned a dict, expected a pair"),
        (NoStepOut(), "inner loop 'NoStepOut': step returned a dict, expected a StepOut"),
        (Mute(), "inner loop 'Mute': assess reports score, expected 'return' in it"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_inner_loop_is_named_with_its_leaf(broken: Table, message: str) -> None:
    with pytest.raises(ContractError, match=re.escape(message)) as caught:
        check_inner(broken, Targets())
    assert "\n" not in str(caught.value)


def test_sound_loops_pass() -> None:
    check_inner(Table(), Targets())
    check_inner(Chaser(), CountingTargets())
    check_outer(Fixed(inner=Chaser(), tasks=Targets(), num_slots=2))
    check_outer(MetaGradient(inner=Chaser(), tasks=CountingTargets(), num_slots=2, truncation=2))


def test_a_missing_method_is_named() -> None:
    @component
    class Half:
        def init_meta(self, key):
            return {}

    with pytest.raises(ContractError, match="inner loop 'Half' has no init, step, evaluate; expected"):
        check_inner(Half(), Targets())  # pyright: ignore[reportArgumentType]


@component
class Wanders(Fixed):
    def step(self, key, state, data):
        state, metrics = Fixed.step(self, key, state, data)
        return state._replace(meta={"gain": state.meta["gain"][None]}), metrics


@component
class Abridges(Fixed):
    def meta_params(self, state):
        return {}


@component
class LongLives:
    def sample(self, key):
        return Task(jax.random.uniform(key), jnp.zeros((2,), jnp.int32))


def test_a_broken_outer_loop_is_named_with_its_leaf() -> None:
    parts: dict = {"inner": Chaser(), "tasks": Targets(), "num_slots": 2}
    moved = "outer loop 'Wanders': state.meta['gain'] is float32[] at birth and float32[1] after step"
    with pytest.raises(ContractError, match=re.escape(moved)):
        check_outer(Wanders(**parts))
    lost = "meta-parameters['gain'] is float32[] in the inner loop's init_meta and missing after meta_params"
    with pytest.raises(ContractError, match=re.escape(lost)):
        check_outer(Abridges(**parts))


def test_an_outer_loop_refuses_by_name() -> None:
    refused = MetaGradient(inner=Chaser(differentiable=False), tasks=Targets(), num_slots=2)
    with pytest.raises(ContractError, match="Chaser has no differentiable outer loss"):
        check_outer(refused)


def test_a_broken_task_is_named() -> None:
    with pytest.raises(ContractError, match=re.escape("lifetime is int32[2], expected int32[]")):
        check_inner(Chaser(), LongLives())
