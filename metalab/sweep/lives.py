"""Lives of an evaluation: the tasks, the newborn learners, and one stretch of life after the other.

A whole evaluation as one program would be compiled again for every number of tasks and every length of
life. Here the host walks through the blocks of a set's tasks and the stretches of their lives, and three
small programs serve all sets, baselines and checkpoints of one learner.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metalab.lifetimes import unroll
from metalab.protocols import Assessable, PyTree, Task, TaskDistribution
from metalab.spec import EvaluationSet
from metalab.sweep.program import Compiler

__all__ = ["raise_in_blocks", "raise_one", "set_tasks", "task_keys"]

# Learners of one lane that are raised at once: a CPU core gains nothing from more, and what a block lacks
# is computed in vain; an accelerator starves on so few.
BLOCK = {"cpu": 8}
LARGE_BLOCK = 64


def set_tasks(tasks: TaskDistribution, count: int, seed: Array | int) -> Task:
    """The tasks of a set, leaves ``[count, ...]``: stratified where the distribution can, else drawn."""
    key = jax.random.key(seed)
    if hasattr(tasks, "sample_set"):
        return tasks.sample_set(key, count)  # pyright: ignore[reportAttributeAccessIssue]
    return jax.vmap(tasks.sample)(jax.random.split(key, count))


def task_keys(key: Array, first: Array | int, count: int) -> Array:
    """Keys [count] of the learners on the tasks ``first``, ``first + 1``, ...; the same in any block."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(count))


def raise_one(
    inner: Any, meta: PyTree, task: Task, key: Array, updates: int, stride: int
) -> tuple[PyTree, dict[str, Array]]:
    """One lifetime: the learner at its end, and its metrics ``[points]``."""
    state, newborn = _born(inner, meta, task, key)

    def stretch(state: PyTree, index: Array) -> tuple[PyTree, dict[str, Array]]:
        return _stretch(inner, meta, state, key, index, stride)

    grown, lived = jax.lax.scan(stretch, state, jnp.arange(updates // stride))
    if not newborn:
        return grown, lived
    return grown, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), newborn, lived)


def raise_in_blocks(
    compiler: Compiler, where: EvaluationSet, inner: Any, tasks: Any, meta: PyTree, keys: Array, number: int
) -> dict[str, np.ndarray]:
    """``raise_one`` for every lane and task of a set: metrics ``[L, count, points]``.

    Args:
        compiler: of the sweep.
        where: the set; its learner and tasks are those of the lanes.
        inner, tasks, meta: leaves ``[L, ...]``.
        keys: [L] lane keys.
        number: of the stream that the learners draw from.
    """
    seed, number_ = jnp.asarray(where.seed, jnp.uint32), jnp.asarray(number, jnp.int32)
    block = min(where.count, BLOCK.get(compiler.mesh.devices.flat[0].platform, LARGE_BLOCK))
    blocks = compiler.run(
        "draw", _draw_lane, (tasks,), shared=(seed,), static=(where.count, block), quick=True
    )
    pieces = []
    for position, drawn in enumerate(blocks):
        first = jnp.asarray(position * block, jnp.int32)
        lanes = (inner, meta, keys)
        state, newborn = compiler.run(
            "birth", _birth_lane, (*lanes, drawn), shared=(number_, first), quick=True
        )
        points = [newborn] if newborn else []
        for index in range(where.updates // where.stride):
            shared = (number_, first, jnp.asarray(index, jnp.int32))
            state, found = compiler.run(
                "evaluate", _stretch_lane, (*lanes, state), shared=shared, static=(where.stride, block)
            )
            points.append(found)
        pieces.append(jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *points))
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *pieces)
    return jax.tree.map(lambda leaf: leaf[:, : where.count], whole)


def _born(inner: Any, meta: PyTree, task: Task, key: Array) -> tuple[PyTree, dict[str, Array]]:
    """A learner and its first assessment; {} if it cannot be assessed."""
    birth_key, first_key, _ = jax.random.split(key, 3)
    state = inner.init(birth_key, meta, task)
    return state, inner.assess(first_key, meta, state) if isinstance(inner, Assessable) else {}


def _stretch(
    inner: Any, meta: PyTree, state: PyTree, key: Array, index: Array, stride: int
) -> tuple[PyTree, dict[str, Array]]:
    """``stride`` updates of a life and the assessment after them; ``index`` [] counts the stretches."""
    live_key, judge_key = jax.random.split(jax.random.fold_in(jax.random.split(key, 3)[2], index))
    state, outs = unroll(inner, live_key, meta, state, stride)
    if isinstance(inner, Assessable):
        return state, inner.assess(judge_key, meta, state)
    state, evaluation = inner.evaluate(judge_key, meta, state, outs, None)
    return state, {"return": evaluation.score}


def _draw_lane(tasks: Any, seed: Array, count: int, block: int) -> tuple[Task, ...]:
    """The tasks of a set in blocks of one size; the last task fills the last block up."""
    drawn = set_tasks(tasks, count, seed)
    rows = [np.minimum(np.arange(start, start + block), count - 1) for start in range(0, count, block)]
    return tuple(jax.tree.map(lambda leaf, at=at: leaf[at], drawn) for at in rows)


def _birth_lane(
    inner: Any, meta: PyTree, key: Array, tasks: Task, number: Array, first: Array
) -> tuple[PyTree, dict[str, Array]]:
    keys = task_keys(jax.random.fold_in(key, number), first, jax.tree.leaves(tasks)[0].shape[0])
    return jax.vmap(lambda task, key: _born(inner, meta, task, key))(tasks, keys)


def _stretch_lane(
    inner: Any,
    meta: PyTree,
    key: Array,
    state: PyTree,
    number: Array,
    first: Array,
    index: Array,
    stride: int,
    block: int,
) -> tuple[PyTree, dict[str, Array]]:
    keys = task_keys(jax.random.fold_in(key, number), first, block)
    return jax.vmap(lambda state, key: _stretch(inner, meta, state, key, index, stride))(state, keys)
