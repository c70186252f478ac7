"""Contracts: whether loops keep what the protocols promise, found out before anything compiles.

Everything here runs under ``jax.eval_shape``: shapes, dtypes and structures are known, nothing is computed.
A state that changes its structure, shape or type from one update to the next would be refused by ``scan``
with a page of types, or compile twice; here the offending leaf is named by its path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metalab.components import as_arrays
from metalab.errors import cause_of
from metalab.lifetimes import init_memory, unroll
from metalab.protocols import (
    AdaptiveTaskDistribution,
    Assessable,
    Evaluation,
    InnerLoop,
    OuterLoop,
    Probe,
    PyTree,
    StepOut,
    Task,
    TaskDistribution,
)

__all__ = ["ContractError", "check_inner", "check_outer", "check_probe"]

_INNER_METHODS = ("init_meta", "init", "step", "evaluate")
_OUTER_METHODS = ("init", "step", "meta_params")
_STRETCH = 2  # inner updates in the stretch that `evaluate` is shown


class ContractError(TypeError):
    """A component breaks its protocol; the message is one line that names the component and the leaf."""


def check_inner(inner: InnerLoop, tasks: TaskDistribution, batch: PyTree = None) -> None:
    """Checks one inner loop on one task distribution.

    Args:
        inner: the learner's loop.
        tasks: what it is born into.
        batch: host-fed data of one inner update (shapes suffice), or None.

    Raises:
        ContractError: a method is missing or fails, a state leaf is weakly typed at birth or changes its
            path, shape or type, or a loss, score or metric is not a scalar.
    """
    inner, tasks = as_arrays(inner), as_arrays(tasks)
    name = f"inner loop {type(inner).__name__!r}"
    _require_methods(name, inner, _INNER_METHODS)
    key = _key()
    task = _check_tasks(tasks, key)
    meta = _trace(name, "init_meta", inner.init_meta, key)
    _check_strong(name, "meta-parameters", meta)
    born = _trace(name, "init", inner.init, key, meta, task)
    _check_strong(name, "state", born)
    stepped, out = _pair(name, "step", _trace(name, "step", inner.step, key, meta, born, batch))
    _check_same(name, "state", born, stepped, "step")
    if not isinstance(out, StepOut):
        raise ContractError(f"{name}: step returned a {type(out).__name__}, expected a StepOut")
    _check_metrics(name, "step", out.metrics)
    _check_evaluate(name, inner, key, meta, born, batch)
    if isinstance(inner, Assessable):
        _check_assess(name, _trace(name, "assess", inner.assess, key, meta, born))


def check_probe(inner: InnerLoop, tasks: TaskDistribution) -> None:
    """Checks that the learners of ``inner`` can be probed on ``tasks``.

    Raises:
        ContractError: the inner loop has no probe, or refuses, or its probe is of other shapes.
    """
    inner, tasks = as_arrays(inner), as_arrays(tasks)
    name = f"inner loop {type(inner).__name__!r}"
    _require_methods(name, inner, ("probe",))

    def born_and_probed(key: PyTree) -> PyTree:
        meta = inner.init_meta(key)
        task = tasks.sample(key)
        return inner.probe(key, meta, inner.init(key, meta, task))  # pyright: ignore[reportAttributeAccessIssue]

    probe = _trace(name, "probe", born_and_probed, _key())
    if not isinstance(probe, Probe):
        raise ContractError(f"{name}: probe returned a {type(probe).__name__}, expected a Probe")
    states = probe.features.shape[:1]
    if len(probe.features.shape) != 2 or probe.targets.shape != states or probe.visited.shape != states:
        shapes = ", ".join(f"{field} {_describe(leaf)}" for field, leaf in probe._asdict().items())
        raise ContractError(f"{name}: probe gave {shapes}; expected [N, F], [N] and [N]")


def check_outer(outer: OuterLoop, data: PyTree = None) -> None:
    """Checks one outer loop, after the inner loop and tasks that it holds.

    Args:
        outer: the outer loop.
        data: host-fed data of one outer step (shapes suffice), or None.

    Raises:
        ContractError: as ``check_inner``; or the outer loop refuses its inner loop.
    """
    outer = as_arrays(outer)
    name = f"outer loop {type(outer).__name__!r}"
    _require_methods(name, outer, (*_OUTER_METHODS, "inner", "tasks"))
    inner, tasks = outer.inner, outer.tasks  # pyright: ignore[reportAttributeAccessIssue]
    if data is None:  # the form of the data of one inner update is the outer loop's own affair
        check_inner(inner, tasks)
    key = _key()
    state = _trace(name, "init", outer.init, key)
    _check_strong(name, "state", state)
    stepped, metrics = _pair(name, "step", _trace(name, "step", outer.step, key, state, data))
    _check_same(name, "state", state, stepped, "step")
    _check_metrics(name, "step", metrics)
    meta = _trace(name, "meta_params", outer.meta_params, state)
    fresh = _trace(name, "init_meta of its inner loop", inner.init_meta, key)
    _check_same(name, "meta-parameters", fresh, meta, "meta_params", before="in the inner loop's init_meta")


def _check_tasks(tasks: TaskDistribution, key: PyTree) -> Task:
    name = f"task distribution {type(tasks).__name__!r}"
    _require_methods(name, tasks, ("sample",))
    if isinstance(tasks, AdaptiveTaskDistribution):
        memory = _trace(name, "init_memory", init_memory, tasks)
        _check_strong(name, "memory", memory)
        task, ticket = _pair(name, "sample_from", _trace(name, "sample_from", tasks.sample_from, key, memory))
        slots = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), ticket)
        scores, ended = (jax.ShapeDtypeStruct((1,), dtype) for dtype in (jnp.float32, jnp.bool_))
        learned = _trace(name, "update", tasks.update, memory, slots, scores, ended)
        _check_same(name, "memory", memory, learned, "update")
    else:
        task = _trace(name, "sample", tasks.sample, key)
    if not isinstance(task, Task):
        raise ContractError(f"{name}: drew a {type(task).__name__}, expected a Task")
    if task.lifetime.shape != () or not jnp.issubdtype(task.lifetime.dtype, jnp.integer):
        raise ContractError(f"{name}: lifetime is {_describe(task.lifetime)}, expected int32[]")
    return task


def _check_evaluate(
    name: str, inner: InnerLoop, key: PyTree, meta: PyTree, state: PyTree, batch: PyTree
) -> None:
    batches = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((_STRETCH, *leaf.shape), leaf.dtype), batch)

    def stretch(key: PyTree, meta: PyTree, state: PyTree, batches: PyTree) -> tuple[PyTree, StepOut]:
        return unroll(inner, key, meta, state, _STRETCH, batches)

    lived, outs = _trace(name, "a stretch of updates", stretch, key, meta, state, batches)
    result = _trace(name, "evaluate", inner.evaluate, key, meta, lived, outs, batches)
    judged, evaluation = _pair(name, "evaluate", result)
    _check_same(name, "state", state, judged, "evaluate")
    if not isinstance(evaluation, Evaluation):
        raise ContractError(
            f"{name}: evaluate returned a {type(evaluation).__name__}, expected an Evaluation"
        )
    _check_scalar(name, "evaluate", "score", evaluation.score, jnp.floating)
    if evaluation.loss is not None:
        _check_scalar(name, "evaluate", "loss", evaluation.loss, jnp.floating)
    if evaluation.broken is not None:
        _check_scalar(name, "evaluate", "broken", evaluation.broken, jnp.bool_)
    _check_metrics(name, "evaluate", evaluation.metrics)


def _check_assess(name: str, assessed: Any) -> None:
    _check_metrics(name, "assess", assessed)
    if "return" not in assessed:
        raise ContractError(
            f"{name}: assess reports {', '.join(assessed) or 'nothing'}, expected 'return' in it"
        )


def _key() -> PyTree:
    return jax.eval_shape(lambda: jax.random.key(0))


def _require_methods(name: str, thing: Any, methods: tuple[str, ...]) -> None:
    missing = [method for method in methods if not hasattr(thing, method)]
    if missing:
        raise ContractError(f"{name} has no {', '.join(missing)}; expected {', '.join(methods)}")


def _trace(name: str, method: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except ContractError:
        raise
    except Exception as error:
        # Whatever a user's component raises becomes one line; the cause keeps its traceback.
        raise ContractError(f"{name}: {method} fails: {cause_of(error)}") from error


def _pair(name: str, method: str, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ContractError(f"{name}: {method} returned a {type(result).__name__}, expected a pair")
    return result


def _leaves(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_strong(name: str, what: str, tree: PyTree) -> None:
    for path, leaf in _leaves(tree).items():
        if getattr(leaf, "weak_type", False):
            raise ContractError(
                f"{name}: {what}{path} is {_describe(leaf)} at birth; "
                f"give it a type: jnp.asarray(value, jnp.{leaf.dtype})"
            )


def _check_same(
    name: str, what: str, born: PyTree, after: PyTree, method: str, before: str = "at birth"
) -> None:
    first, second = _leaves(born), _leaves(after)
    for path in first | second:
        was = _describe(first[path]) if path in first else "missing"
        now = _describe(second[path]) if path in second else "missing"
        if was != now:
            raise ContractError(f"{name}: {what}{path} is {was} {before} and {now} after {method}")
    if jax.tree.structure(born) != jax.tree.structure(after):
        raise ContractError(
            f"{name}: {what} is {type(born).__name__} {jax.tree.structure(born)} {before} "
            f"and {type(after).__name__} {jax.tree.structure(after)} after {method}"
        )


def _check_metrics(name: str, method: str, metrics: Any) -> None:
    if not isinstance(metrics, dict):
        raise ContractError(
            f"{name}: {method} reports a {type(metrics).__name__}, expected a dict of scalars"
        )
    for metric, value in metrics.items():
        if getattr(value, "shape", None) != ():
            raise ContractError(
                f"{name}: metric {metric!r} of {method} is {_describe(value)}, expected a scalar"
            )


def _check_scalar(name: str, method: str, field: str, value: Any, kind: Any) -> None:
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, kind):
        wanted = "bool[]" if kind is jnp.bool_ else "float32[]"
        raise ContractError(f"{name}: {field} of {method} is {_describe(value)}, expected {wanted}")


def _describe(leaf: Any) -> str:
    """For example ``float32[288,8]``."""
    if not hasattr(leaf, "shape"):
        return type(leaf).__name__
    weak = " (weakly typed)" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]{weak}"
