"""Lifetimes: the only scan over inner updates, the only birth and the only reset in the system.

Outer loops own lifetimes. Inner loops never see done-masks of their own life or any batch axis.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from metalab.gradients import INNER_GRADIENT
from metalab.protocols import (
    AdaptiveTaskDistribution,
    Evaluation,
    Gated,
    HostFed,
    InnerLoop,
    PyTree,
    StepOut,
    Task,
    TaskDistribution,
)
from metalab.trees import select

__all__ = [
    "Slots",
    "advance",
    "born",
    "broken_of",
    "host_batches",
    "init_memory",
    "keep",
    "rebirth",
    "slot_metrics",
    "taught",
    "unroll",
]

_KEPT = "metalab_kept"


def keep(tree: PyTree) -> PyTree:
    """Marks values that a rematerialised inner update stores instead of computing again.

    An inner loop marks what is dear to recompute (the states of a recurrent core) or what must not be
    recomputed (nothing, as long as loops are pure). Without rematerialisation it is the identity.
    """
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, _KEPT), tree)


def unroll(
    inner: InnerLoop,
    key: Array,
    meta: PyTree,
    state: PyTree,
    length: int,
    batches: PyTree = None,
    remaining: Array | None = None,
    remat: bool = False,
    keep_gradients: bool = False,
) -> tuple[PyTree, StepOut]:
    """Runs ``length`` inner updates of one lifetime.

    Args:
        inner: the learner's loop.
        key: PRNG key.
        meta: meta-parameters.
        state: the learner's state.
        length: K, static.
        batches: host-fed data, leaves ``[K, ...]``, or None.
        remaining: [] int32, updates left in this life: later ones leave the state as it is and report
            zeros. None: the whole stretch is lived.
        remat: recompute each update in the backward pass, but for what the loop marked with ``keep``.
        keep_gradients: with ``remat``, store the inner gradients as well.

    Returns:
        The state after the stretch and the ``StepOut``s, leaves ``[K, ...]``.
    """

    def body(state: PyTree, xs: tuple[Array, Array, PyTree]) -> tuple[PyTree, StepOut]:
        step_key, index, batch = xs
        if remaining is None:
            return inner.step(step_key, meta, state, batch)
        alive = index < remaining
        if isinstance(inner, Gated):
            new_state, out = inner.step_if(alive, step_key, meta, state, batch)
        else:
            new_state, out = inner.step(step_key, meta, state, batch)
            new_state = select(alive, new_state, state)
        return new_state, select(alive, out, jax.tree.map(jnp.zeros_like, out))

    if remat:
        stored = (_KEPT, INNER_GRADIENT) if keep_gradients else (_KEPT,)
        policy = jax.checkpoint_policies.save_only_these_names(*stored)
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)  # inside scan: nothing to merge with
    keys = jax.random.split(key, length)
    return jax.lax.scan(body, state, (keys, jnp.arange(length), batches))


def host_batches(inner: InnerLoop, rng: np.random.Generator, num_slots: int, length: int) -> PyTree:
    """What the host draws for ``length`` updates of every slot, numpy leaves ``[P, K, ...]``, or None."""
    if not isinstance(inner, HostFed):
        return None
    each = [inner.host_batches(rng, length) for _ in range(num_slots)]
    return None if each[0] is None else jax.tree.map(lambda *leaves: np.stack(leaves), *each)


class Slots(NamedTuple):
    """Lifetimes in flight.

    Attributes:
        state: inner states, leaves ``[P, ...]``.
        age: [P] int32, inner updates lived.
        lifetime: [P] int32, inner updates to live.
        ticket: what an adaptive task distribution wants back with the score, leaves ``[P, ...]``.
    """

    state: PyTree
    age: Array
    lifetime: Array
    ticket: PyTree


def init_memory(tasks: TaskDistribution) -> PyTree:
    """The memory of an adaptive task distribution; () for one that does not learn."""
    return tasks.init_memory() if isinstance(tasks, AdaptiveTaskDistribution) else ()


def born(
    inner: InnerLoop,
    tasks: TaskDistribution,
    key: Array,
    meta: PyTree,
    memory: PyTree,
    num_slots: int,
    stagger: bool = True,
    stratify: bool = False,
) -> Slots:
    """Fills ``num_slots`` slots with newborn learners.

    With ``stagger`` the first ages are uniform over the lifetime, so that from then on the slots are at all
    phases of life: in phase, an outer step would see one training phase at a time. A staggered first life
    is shorter by its first age. Without it all slots die together for ever. With ``stratify`` the first ages
    are spaced evenly, slot ``i`` at ``i / P`` of its lifetime: a handful of slots drawn at random may crowd.
    """
    birth_key, age_key = jax.random.split(key)
    slots = _newborn(inner, tasks, birth_key, meta, memory, num_slots)
    if not stagger:
        return slots
    drawn = jax.random.uniform(age_key, (num_slots,))
    fraction = jnp.arange(num_slots) / num_slots if stratify else drawn
    return slots._replace(age=jnp.floor(fraction * slots.lifetime).astype(jnp.int32))


def rebirth(
    inner: InnerLoop,
    tasks: TaskDistribution,
    key: Array,
    meta: PyTree,
    memory: PyTree,
    slots: Slots,
) -> Slots:
    """Replaces the slots whose life is over by newborn learners on fresh tasks."""
    done = slots.age >= slots.lifetime
    fresh = _newborn(inner, tasks, key, meta, memory, done.shape[0])
    return select(done, fresh, slots)


def advance(slots: Slots, state: PyTree, length: int, broken: Array | None) -> Slots:
    """The slots after a truncation of ``length`` updates; a broken one has reached its end.

    Args:
        slots: before the truncation.
        state: inner states after it.
        length: K.
        broken: [P] bool or None.
    """
    age = jnp.minimum(slots.age + length, slots.lifetime)
    age = age if broken is None else jnp.where(broken, slots.lifetime, age)
    return slots._replace(state=state, age=age)


def taught(
    tasks: TaskDistribution, memory: PyTree, slots: Slots, evaluation: Evaluation, ended: Array
) -> PyTree:
    """The memory after a truncation: an adaptive task distribution learns from the lives that ended whole.

    Args:
        tasks: the distribution; one that does not adapt keeps its empty memory.
        memory: before.
        slots: with the tickets of the lives that were lived.
        evaluation: of the truncation, leaves ``[P]``.
        ended: [P] bool, the life is over.
    """
    if not isinstance(tasks, AdaptiveTaskDistribution):
        return memory
    return tasks.update(memory, slots.ticket, evaluation.score, ended & ~broken_of(evaluation))


def slot_metrics(evaluation: Evaluation, ended: Array) -> dict[str, Array]:
    """Means over the slots that are whole (a broken slot's numbers may not be finite), and shares of all."""
    broken = broken_of(evaluation)

    def mean(values: Array) -> Array:
        return jnp.sum(jnp.where(broken, 0.0, values)) / jnp.maximum(jnp.sum(~broken), 1)

    metrics = {f"inner/{name}": mean(value) for name, value in evaluation.metrics.items()}
    if evaluation.loss is not None:
        metrics["loss"] = mean(evaluation.loss)
    return metrics | {
        "score": mean(evaluation.score),
        "broken": jnp.mean(broken.astype(jnp.float32)),
        "ended": jnp.mean(ended.astype(jnp.float32)),
    }


def broken_of(evaluation: Evaluation) -> Array:
    """[P] bool: lifetimes that have broken down; none where the inner loop cannot break."""
    return jnp.zeros(evaluation.score.shape, bool) if evaluation.broken is None else evaluation.broken


def _newborn(
    inner: InnerLoop, tasks: TaskDistribution, key: Array, meta: PyTree, memory: PyTree, num_slots: int
) -> Slots:
    def one(key: Array) -> Slots:
        task_key, init_key = jax.random.split(key)
        task, ticket = _draw(tasks, task_key, memory)
        state = inner.init(init_key, meta, task)
        return Slots(state, jnp.zeros((), jnp.int32), jnp.asarray(task.lifetime, jnp.int32), ticket)

    return jax.vmap(one)(jax.random.split(key, num_slots))


def _draw(tasks: TaskDistribution, key: Array, memory: PyTree) -> tuple[Task, PyTree]:
    if isinstance(tasks, AdaptiveTaskDistribution):
        return tasks.sample_from(key, memory)
    return tasks.sample(key), ()
