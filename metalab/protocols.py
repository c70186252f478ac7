"""The protocols that carry every system: a learner's inner loop, its tasks, and the outer loop above it.

Axis letters, used in every shape comment of the project:
``H`` points of a sweep, ``S`` seeds, ``P`` slots (lifetimes in flight), ``N`` population members,
``K`` inner updates in one truncation, ``B`` environments per learner, ``T`` environment steps per rollout.

All functions are pure and unbatched: the caller vmaps.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jax import Array

__all__ = [
    "AdaptiveTaskDistribution",
    "Assessable",
    "Evaluation",
    "FedOuterLoop",
    "Gated",
    "HostFed",
    "InnerLoop",
    "OuterLoop",
    "Probe",
    "Probeable",
    "PyTree",
    "StepOut",
    "Task",
    "TaskDistribution",
    "Valued",
]

PyTree = Any
M = TypeVar("M")
S = TypeVar("S")
O = TypeVar("O")  # noqa: E741  (the outer state's letter in the design)


class Task(NamedTuple):
    """One problem that a learner is born into.

    Attributes:
        params: environment parameters, a recorded history, a data shard: any pytree.
        lifetime: [] int32, inner updates before the slot is reborn.
    """

    params: PyTree
    lifetime: Array


class StepOut(NamedTuple):
    """What one inner update reports; fields that nobody reads are dead code to XLA.

    Attributes:
        metrics: scalars by name.
        aux: what this loop's own ``evaluate`` wants of every update.
        record: what an observer may keep: transitions ``[T, B, ...]``. ``metalab record`` reads ``obs``
            [T + 1, B, ...], ``action``, ``reward``, ``terminated`` and ``truncated`` [T, B].
    """

    metrics: dict[str, Array]
    aux: PyTree = None
    record: PyTree = None


class Evaluation(NamedTuple):
    """How a stretch of a lifetime is judged.

    Attributes:
        loss: [] differentiable in the meta-parameters; None: this loop offers no gradient.
        score: [] higher is better; evolution maximises it and a bandit over hyperparameters reads it.
        metrics: scalars by name.
        broken: [] bool, the lifetime has broken down (non-finite, entropy zero) and is to be reborn at
            once, without its score being counted; None: it cannot break.
    """

    loss: Array | None
    score: Array
    metrics: dict[str, Array]
    broken: Array | None = None


class InnerLoop(Protocol[M, S]):
    """A learner in its world: pure, unbatched; it never sees another lifetime or the end of its own."""

    def init_meta(self, key: Array) -> M:
        """Fresh meta-parameters."""
        ...

    def init(self, key: Array, meta: M, task: Task) -> S:
        """A newborn learner on ``task``."""
        ...

    def step(self, key: Array, meta: M, state: S, batch: PyTree) -> tuple[S, StepOut]:
        """One inner update; ``batch`` is host-fed data or None."""
        ...

    def evaluate(self, key: Array, meta: M, state: S, outs: StepOut, batch: PyTree) -> tuple[S, Evaluation]:
        """Judges the truncation that produced ``outs`` (leaves ``[K, ...]``)."""
        ...


@runtime_checkable
class Assessable(Protocol):
    """An inner loop that can say how good its learner is now, as reports want it.

    The result is never differentiated and never fed back into training, so it may use what a learner
    must not see (the exact expected return of a tabular world).
    """

    def assess(self, key: Array, meta: PyTree, state: PyTree) -> dict[str, Array]:
        """Scalars by name; ``return`` is always among them, higher is better."""
        ...


class Probe(NamedTuple):
    """What a learner holds about its states, beside the truth about them.

    Attributes:
        features: [N, F] what the learner's representation says of each of N states.
        targets: [N] the truth, for example exact values.
        visited: [N] bool, the states that count.
    """

    features: Array
    targets: Array
    visited: Array


@runtime_checkable
class Probeable(Protocol):
    """An inner loop whose learner's representation can be compared with the truth, for reports."""

    def probe(self, key: Array, meta: PyTree, state: PyTree) -> Probe:
        """The learner's probe.

        Raises:
            TypeError: this learner has no such representation, or its world no exact values.
        """
        ...


@runtime_checkable
class Valued(Protocol):
    """An inner loop whose meta-parameters stand for values by name (``metalab.exposure``), for metrics."""

    def values_of(self, meta: PyTree) -> dict[str, Array]:
        """Name to [] value."""
        ...


@runtime_checkable
class Gated(Protocol):
    """An inner loop whose state is too large to be chosen leaf by leaf at every update (a replay).

    A lifetime that is over stays as it is while its neighbours go on. To choose between the old and the new
    state copies both: a learner that can leave its state alone by itself does so here.
    """

    def step_if(
        self, alive: Array, key: Array, meta: PyTree, state: PyTree, batch: PyTree
    ) -> tuple[PyTree, StepOut]:
        """``step`` where ``alive`` ([] bool); elsewhere the state as it was, and a report nobody reads."""
        ...


@runtime_checkable
class HostFed(Protocol):
    """An inner loop whose batches the host may draw in advance: the device has no room for all of them."""

    def host_batches(self, rng: np.random.Generator, length: int) -> PyTree:
        """The batches of ``length`` inner updates of one lifetime.

        Returns:
            numpy leaves ``[length, ...]``, whose shapes are always the same; None: the program draws.
        """
        ...


class TaskDistribution(Protocol):
    """Where tasks come from."""

    def sample(self, key: Array) -> Task:
        """Draws one task."""
        ...


@runtime_checkable
class AdaptiveTaskDistribution(Protocol):
    """A task distribution that learns from the lifetimes that it gave (a bandit, a curriculum).

    ``memory`` is its state, kept by the outer loop; ``ticket`` is what it wants back with the score.
    """

    def init_memory(self) -> PyTree:
        """The memory before the first lifetime."""
        ...

    def sample_from(self, key: Array, memory: PyTree) -> tuple[Task, PyTree]:
        """Draws one task and its ticket."""
        ...

    def update(self, memory: PyTree, tickets: PyTree, scores: Array, ended: Array) -> PyTree:
        """Learns from the slots' lifetimes: tickets ``[P, ...]``, scores ``[P]``, ended ``[P]`` bool."""
        ...


class OuterLoop(Protocol[O]):
    """What moves the meta-parameters; its inner loop and its tasks are fields."""

    def init(self, key: Array) -> O:
        """The outer state: meta-parameters, optimiser, slots."""
        ...

    def step(self, key: Array, state: O, data: PyTree) -> tuple[O, dict[str, Array]]:
        """One outer step; ``data``: host-fed batches or None."""
        ...

    def meta_params(self, state: O) -> PyTree:
        """The meta-parameters to evaluate and to keep."""
        ...


@runtime_checkable
class FedOuterLoop(Protocol):
    """An outer loop that hands batches drawn by the host to its inner loop, if that is ``HostFed``."""

    def host_batches(self, rng: np.random.Generator) -> PyTree:
        """The ``data`` of one outer step, numpy leaves; None: the program draws."""
        ...
