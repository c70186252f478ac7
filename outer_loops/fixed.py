"""Fixed meta-parameters: lifetimes are lived and scored, nothing is learned from them.

The control of every meta-trained run, the way to run a classical learner that has no meta-parameters, and
the training-time view of a meta-test: the same slots as a meta-gradient, without the gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from metalab.components import component, part, static
from metalab.lifetimes import (
    Slots,
    advance,
    born,
    host_batches,
    init_memory,
    rebirth,
    slot_metrics,
    taught,
    unroll,
)
from metalab.protocols import Evaluation, InnerLoop, PyTree, TaskDistribution

__all__ = ["Fixed", "FixedState"]


class FixedState(NamedTuple):
    """Outer state.

    Attributes:
        meta: meta-parameters, as initialised.
        slots: lifetimes in flight.
        memory: of an adaptive task distribution, else ().
    """

    meta: PyTree
    slots: Slots
    memory: PyTree


@component
class Fixed:
    """Meta-parameters that never move: control, classical learners, meta-test."""

    inner: InnerLoop = part(doc="what learns", group="inner")
    tasks: TaskDistribution = part(doc="what it lives in", group="tasks")
    truncation: int = static(5, doc="K, inner updates between two evaluations", at_least=1)
    num_slots: int = static(32, doc="P, lifetimes in flight", at_least=1)
    stagger: bool = static(True, doc="spread first ages over the lifetime")

    def init(self, key: Array) -> FixedState:
        """Fresh meta-parameters and newborn slots."""
        meta_key, born_key = jax.random.split(key)
        meta = self.inner.init_meta(meta_key)
        memory = init_memory(self.tasks)
        slots = born(self.inner, self.tasks, born_key, meta, memory, self.num_slots, self.stagger)
        return FixedState(meta, slots, memory)

    def step(self, key: Array, state: FixedState, data: PyTree) -> tuple[FixedState, dict[str, Array]]:
        """One truncation of every slot; ``data``: leaves ``[P, K, ...]`` or None."""
        birth_key, live_key = jax.random.split(key)
        slots = rebirth(self.inner, self.tasks, birth_key, state.meta, state.memory, state.slots)
        keys = jax.random.split(live_key, self.num_slots)
        axes = (None, 0, 0, None if data is None else 0)
        states, evaluation = jax.vmap(self._live, axes)(state.meta, keys, slots, data)
        new_slots = advance(slots, states, self.truncation, evaluation.broken)
        ended = new_slots.age >= new_slots.lifetime
        memory = taught(self.tasks, state.memory, slots, evaluation, ended)
        return FixedState(state.meta, new_slots, memory), slot_metrics(evaluation, ended)

    def host_batches(self, rng: np.random.Generator) -> PyTree:
        """See ``FedOuterLoop``: leaves ``[P, K, ...]`` or None."""
        return host_batches(self.inner, rng, self.num_slots, self.truncation)

    def meta_params(self, state: FixedState) -> PyTree:
        """The meta-parameters as initialised."""
        return state.meta

    def _live(self, meta: PyTree, key: Array, slot: Slots, batches: PyTree) -> tuple[PyTree, Evaluation]:
        unroll_key, evaluate_key = jax.random.split(key)
        remaining = slot.lifetime - slot.age
        state, outs = unroll(self.inner, unroll_key, meta, slot.state, self.truncation, batches, remaining)
        return self.inner.evaluate(evaluate_key, meta, state, outs, batches)
