"""The smallest loops that keep every protocol; their arithmetic can be done by hand."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import component, number, static
from metalab.protocols import Evaluation, PyTree, StepOut, Task


class Position(NamedTuple):
    """A learner's state: where it is, where it should be, updates lived."""

    x: Array
    target: Array
    updates: Array


@component
class Chaser:
    """A learner at ``x`` that covers the share ``gain``, its meta-parameter, of the way to its target.

    Without noise the distance after n updates is ``target * (1 - gain)**n``; a gain of 1 is best.
    """

    gain: float = number(0.1, doc="initial gain")
    noise: float = number(0.0, doc="standard deviation of the target's motion", at_least=0.0)
    differentiable: bool = static(True, doc="offers an outer loss")

    def init_meta(self, key: Array) -> PyTree:
        del key
        return {"gain": jnp.asarray(self.gain, float)}

    def init(self, key: Array, meta: PyTree, task: Task) -> Position:
        del key, meta
        return Position(jnp.zeros(()), task.params, jnp.zeros((), jnp.int32))

    def step(self, key: Array, meta: PyTree, state: Position, batch: PyTree) -> tuple[Position, StepOut]:
        del batch
        x = state.x + meta["gain"] * (state.target - state.x) + self.noise * jax.random.normal(key)
        return state._replace(x=x, updates=state.updates + 1), StepOut(metrics={"x": x}, record=x)

    def evaluate(
        self, key: Array, meta: PyTree, state: Position, outs: StepOut, batch: PyTree
    ) -> tuple[Position, Evaluation]:
        del key, meta, outs, batch
        loss = jnp.square(state.target - state.x)
        return state, Evaluation(loss if self.differentiable else None, -loss, {"x": state.x})

    def assess(self, key: Array, meta: PyTree, state: Position) -> dict[str, Array]:
        del key, meta
        return {"return": -jnp.square(state.target - state.x)}


@component
class Targets:
    """Targets around 1, lifetimes of a fixed length."""

    spread: float = number(0.0, doc="half the width of the targets' interval around 1", at_least=0.0)
    lifetime: int = static(4, doc="inner updates", at_least=1)

    def sample(self, key: Array) -> Task:
        target = 1.0 + self.spread * jax.random.uniform(key, minval=-1.0, maxval=1.0)
        return Task(target, jnp.asarray(self.lifetime, jnp.int32))


@component
class CountingTargets:
    """An adaptive distribution: remembers how many lifetimes ended and the sum of their scores."""

    lifetime: int = static(4, doc="inner updates", at_least=1)

    def init_memory(self) -> PyTree:
        return {"ended": jnp.zeros((), jnp.int32), "scores": jnp.zeros(()), "tickets": jnp.zeros(())}

    def sample(self, key: Array) -> Task:
        return Targets(lifetime=self.lifetime).sample(key)

    def sample_from(self, key: Array, memory: PyTree) -> tuple[Task, Array]:
        del memory
        return self.sample(key), jnp.asarray(2.0, float)

    def update(self, memory: PyTree, tickets: PyTree, scores: Array, ended: Array) -> PyTree:
        return {
            "ended": memory["ended"] + jnp.sum(ended, dtype=jnp.int32),
            "scores": memory["scores"] + jnp.sum(jnp.where(ended, scores, 0.0)),
            "tickets": memory["tickets"] + jnp.sum(jnp.where(ended, tickets, 0.0)),
        }
