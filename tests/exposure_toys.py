"""A learner without meta-parameters, whose best hyperparameters are known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from metalab.components import component, number, part, static
from metalab.optimizers import Sgd
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from tests.toys import Position


@component
class Walker:
    """A learner that covers the share ``gain * optimizer.learning_rate`` of the way to its target.

    Without its ``bias`` the distance after n updates is ``target * (1 - share)**n``: a share of 1 is best.
    """

    gain: float = number(0.5, doc="share of the way", above=0.0, at_most=1.0)
    bias: float = number(0.0, doc="added to every step")
    patience: int = number(3, doc="a whole number", at_least=1)
    limit: float | None = number(None, doc="a number that is off", above=0.0)
    gains: tuple[float, ...] = number((0.1, 0.2), doc="several numbers")
    width: int = static(2, doc="of nothing", at_least=1)
    optimizer: Any = part(Sgd(learning_rate=0.5), doc="its optimiser", group="optimizer")

    @property
    def steps_per_update(self) -> int:
        return self.width

    def init_meta(self, key: Array) -> PyTree:
        del key
        return ()

    def init(self, key: Array, meta: PyTree, task: Task) -> Position:
        del key, meta
        return Position(jnp.zeros(()), task.params, jnp.zeros((), jnp.int32))

    def step(self, key: Array, meta: PyTree, state: Position, batch: PyTree) -> tuple[Position, StepOut]:
        del key, meta, batch
        share = self.gain * self.optimizer.learning_rate
        x = state.x + share * (state.target - state.x) + self.bias
        return state._replace(x=x, updates=state.updates + 1), StepOut(metrics={"x": x})

    def evaluate(
        self, key: Array, meta: PyTree, state: Position, outs: StepOut, batch: PyTree
    ) -> tuple[Position, Evaluation]:
        del key, meta, outs, batch
        loss = jnp.square(state.target - state.x)
        return state, Evaluation(loss, -loss, {"x": state.x})

    def assess(self, key: Array, meta: PyTree, state: Position) -> dict[str, Array]:
        del key, meta
        return {"return": -jnp.square(state.target - state.x)}
