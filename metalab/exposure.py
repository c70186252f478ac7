"""Hyperparameters as meta-parameters: numbers of a learner that an outer loop moves.

``expose(learner, leaves)`` gives the same learner with one meta-parameter for each number that is named: an
unconstrained number, which a bijector keeps in the range of the leaf it stands for. Whatever moves
meta-parameters then tunes hyperparameters: a meta-gradient (Xu et al. 2018, arXiv:1805.09801; Zahavy et al.
2020, arXiv:2002.12928), an evolution strategy, population-based training (Jaderberg et al. 2017,
arXiv:1711.09846).

The exposed learner is of a class derived from the learner's own: it has the same fields, sizes and optional
methods, so everything that reads a learner reads it too. Its methods put the values of the meta-parameters
into the leaves and hand over to the learner.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from metalab.components import FieldSpec, component, is_component, number, part, specs, static
from metalab.errors import nearest
from metalab.protocols import Evaluation, PyTree, StepOut, Task

__all__ = ["METRIC", "SCALES", "Exposed", "Leaf", "expose", "exposed_class", "leaf_of", "learner_class"]

SCALES = ("linear", "log")
METRIC = "meta/"  # before the name of an exposed value, in metrics and assessments
_EDGE = 1e-6  # of a range's width: an end that is excluded is never reached by rounding


@component
class Leaf:
    """One number of a learner and the bijector from all real numbers to its range.

    ============  ==================  =====================================
    bounds        scale               value at ``u``
    ============  ==================  =====================================
    none          linear              ``u``
    low           log (the default)   ``low + exp(u)``
    low           linear              ``low + softplus(u)``
    high          log, linear         the mirror image of ``low``
    low and high  linear (default)    ``low + (high - low) sigmoid(u)``
    low and high  log                 ``low (high / low) ** sigmoid(u)``
    ============  ==================  =====================================
    """

    name: str = static(doc="of the number, dotted where it lies in a part")
    low: float | None = number(None, doc="lower end of its range; none: unbounded below")
    high: float | None = number(None, doc="upper end of its range; none: unbounded above")
    scale: str = static("linear", doc="of the bijector", choices=SCALES)

    def value(self, free: Array) -> Array:
        """[] the value that the unconstrained number ``free`` stands for."""
        low, high = self.low, self.high
        if low is not None and high is not None:
            share = _EDGE + (1.0 - 2.0 * _EDGE) * jax.nn.sigmoid(free)
            return low * (high / low) ** share if self.scale == "log" else low + (high - low) * share
        distance = jnp.exp(free) if self.scale == "log" else jax.nn.softplus(free)
        if low is not None:
            return low + distance
        return free if high is None else high - distance

    def free(self, value: Any) -> Array:
        """[] the inverse of ``value``."""
        value, low, high = jnp.asarray(value, float), self.low, self.high
        if low is not None and high is not None:
            log = self.scale == "log"
            share = jnp.log(value / low) / jnp.log(high / low) if log else (value - low) / (high - low)
            share = (share - _EDGE) / (1.0 - 2.0 * _EDGE)
            return jnp.log(share) - jnp.log1p(-share)
        if low is None and high is None:
            return value
        distance = value - low if low is not None else high - value
        return jnp.log(distance) if self.scale == "log" else distance + jnp.log(-jnp.expm1(-distance))

    def holds(self, value: float) -> bool:
        """Whether a value lies strictly inside the range, where alone a meta-parameter can start."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        margin = 2.0 * _EDGE * (high - low) if math.isfinite(high - low) else 0.0
        return low + margin < value < high - margin


class Exposed:
    """What an exposed learner does in place of the learner that it is derived from.

    Meta-parameters are a dictionary of unconstrained scalars by the leaves' names. The metrics of every
    judgement hold the values that they stand for, in the leaves' own units.
    """

    learner_type: ClassVar[type]
    meta: tuple[Leaf, ...]

    def init_meta(self, key: Array) -> dict[str, Array]:
        """The meta-parameters that stand for the values as configured.

        Raises:
            TypeError: the learner has meta-parameters of its own.
        """
        learner = _plain_learner(self)
        if jax.tree.leaves(jax.eval_shape(learner.init_meta, key)):
            raise TypeError(
                f"{_described(learner)} has meta-parameters of its own: hyperparameters are exposed on "
                "learners that have none; leave out `meta`"
            )
        return {leaf.name: leaf.free(_number_at(self, leaf.name)) for leaf in self.meta}

    def values_of(self, meta: dict[str, Array]) -> dict[str, Array]:
        """Name to the value that a meta-parameter stands for, in the leaf's own units."""
        return {leaf.name: leaf.value(meta[leaf.name]) for leaf in self.meta}

    def learner_at(self, meta: dict[str, Array]) -> Any:
        """The learner with these values in its leaves; it has no meta-parameters."""
        learner = _plain_learner(self)
        for name, value in self.values_of(meta).items():
            learner = _with_number(learner, name, value)
        return learner

    def init(self, key: Array, meta: dict[str, Array], task: Task) -> PyTree:
        """A newborn learner."""
        return self.learner_at(meta).init(key, (), task)

    def step(
        self, key: Array, meta: dict[str, Array], state: PyTree, batch: PyTree
    ) -> tuple[PyTree, StepOut]:
        """One update with the values of ``meta``."""
        return self.learner_at(meta).step(key, (), state, batch)

    def evaluate(
        self, key: Array, meta: dict[str, Array], state: PyTree, outs: StepOut, batch: PyTree
    ) -> tuple[PyTree, Evaluation]:
        """The learner's own judgement, and the values."""
        state, evaluation = self.learner_at(meta).evaluate(key, (), state, outs, batch)
        return state, evaluation._replace(metrics={**evaluation.metrics, **_metrics(self, meta)})


def expose(learner: Any, leaves: Sequence[Leaf]) -> Any:
    """The learner with meta-parameters for some of its numbers.

    Args:
        learner: an inner loop without meta-parameters, a component.
        leaves: see ``leaf_of``; their names differ.

    Raises:
        ValueError: a name leads to no number, or a number does not lie inside its range.
    """
    fields = {name: getattr(learner, name) for name in specs(learner)}
    return exposed_class(type(learner))(**fields, meta=tuple(leaves))


def leaf_of(
    learner: Any, name: str, low: float | None = None, high: float | None = None, scale: str | None = None
) -> Leaf:
    """The leaf of a name, with the declared bounds of its number unless narrower ones are given.

    Args:
        learner: an inner loop, a component.
        name: for example ``discount`` or ``optimizer.learning_rate``.
        low, high: ends of its range; None: as declared.
        scale: ``linear`` or ``log``; None: log where there is one end, else linear.

    Raises:
        ValueError: the name leads to no number, or its range is none or lies outside the declared one.
    """
    spec = _declared(learner, name)
    least, most = _end(spec.at_least, spec.above), _end(spec.at_most, spec.below)
    for end in (low, high):
        if end is not None and ((least is not None and end < least) or (most is not None and end > most)):
            shown = " to ".join("unbounded" if bound is None else f"{bound:g}" for bound in (least, most))
            raise ValueError(f"{name}: {end:g} lies outside its declared range ({shown})")
    low, high = (least if low is None else low), (most if high is None else high)
    scale = scale or ("log" if (low is None) != (high is None) else "linear")
    if low is not None and high is not None:
        if low >= high:
            raise ValueError(f"{name}: low {low:g} is not below high {high:g}")
        if scale == "log" and low <= 0.0:
            raise ValueError(f"{name}: scale log between two ends needs low above 0, got {low:g}")
    if scale == "log" and low is None and high is None:
        raise ValueError(f"{name}: scale log needs an end of the range, low or high")
    return Leaf(name=name, low=low, high=high, scale=scale)


def learner_class(cls: type) -> type:
    """The class of the learner that an exposed class is derived from; any other class itself."""
    return cls.learner_type if issubclass(cls, Exposed) else cls


@functools.cache
def exposed_class(learner: type) -> type:
    """The class of exposed learners of one class: the same at every call, for it is part of the program."""
    optional = {name: method for name, method in _OPTIONAL.items() if hasattr(learner, name)}
    body = {
        "__doc__": learner.__doc__,
        "__module__": __name__,
        "__annotations__": {"meta": tuple[Leaf, ...]},
        "__post_init__": _check_leaves,
        "learner_type": learner,
        "meta": part(doc="its numbers that are meta-parameters", group="leaf"),
    }
    return component(type(f"Exposed{learner.__name__}", (Exposed, learner), {**body, **optional}))


def _check_leaves(self: Any) -> None:
    """Every leaf is there and starts inside its range; the learner's own check comes first."""
    check = getattr(learner_class(type(self)), "__post_init__", None)
    if check is not None:
        check(self)
    # While jax rebuilds a component from its leaves, parts and numbers may be anything.
    for leaf in self.meta if isinstance(self.meta, tuple) else ():
        value = _number_at(self, leaf.name) if isinstance(leaf, Leaf) else None
        if type(value) is float and {type(leaf.low), type(leaf.high)} <= {float, type(None)}:
            _check_inside(leaf, value)


def _check_inside(leaf: Leaf, value: float) -> None:
    if not leaf.holds(value):
        ends = [(leaf.low, "above"), (leaf.high, "below")]
        allowed = " and ".join(f"{word} {end:g}" for end, word in ends if end is not None)
        raise ValueError(f"{leaf.name}: a meta-parameter starts inside its range, {allowed}; got {value:g}")


def _assess(self: Any, key: Array, meta: dict[str, Array], state: PyTree) -> dict[str, Array]:
    """The learner's own assessment, and the values."""
    return {**self.learner_at(meta).assess(key, (), state), **_metrics(self, meta)}


def _probe(self: Any, key: Array, meta: dict[str, Array], state: PyTree) -> Any:
    """The learner's own probe."""
    return self.learner_at(meta).probe(key, (), state)


def _step_if(
    self: Any, alive: Array, key: Array, meta: dict[str, Array], state: PyTree, batch: PyTree
) -> tuple[PyTree, StepOut]:
    """One update of the learner with the values of ``meta``, where ``alive``."""
    return self.learner_at(meta).step_if(alive, key, (), state, batch)


_OPTIONAL = {"assess": _assess, "probe": _probe, "step_if": _step_if}


def _metrics(exposed: Exposed, meta: dict[str, Array]) -> dict[str, Array]:
    return {METRIC + name: value for name, value in exposed.values_of(meta).items()}


def _plain_learner(exposed: Any) -> Any:
    cls = learner_class(type(exposed))
    return cls(**{name: getattr(exposed, name) for name in specs(cls)})


def _number_at(node: Any, name: str) -> Any:
    """The number of a dotted name; None where a part on the way is a placeholder."""
    for step in name.split("."):
        node = getattr(node, step, None)
    return node


def _with_number(node: Any, name: str, value: Array) -> Any:
    head, _, rest = name.partition(".")
    inside = _with_number(getattr(node, head), rest, value) if rest else value
    return dataclasses.replace(node, **{head: inside})


def _declared(learner: Any, name: str) -> FieldSpec:
    """What is declared of a number that can be exposed."""
    *parents, last = name.split(".")
    node = learner
    for step in parents:
        node = getattr(node, step, None) if is_component(node) else None
    spec = specs(node).get(last) if is_component(node) else None
    if spec is None:
        hint = nearest(name, _numbers(learner))
        raise ValueError(f"{name}: {_described(learner)} has no such number; {hint}")
    value = getattr(node, last)
    if spec.kind == "part":
        inside = ", ".join(f"{name}.{found}" for found in _numbers(value)) or "it has none"
        raise ValueError(f"{name}: is a component; its numbers: {inside}")
    if spec.kind == "static":
        raise ValueError(f"{name}: is static, part of the program's shape; only numbers can be exposed")
    if value is None:
        raise ValueError(f"{name}: is off (null); a meta-parameter starts at a number")
    if not _is_real(value):
        raise ValueError(f"{name}: holds {value!r}; only single real numbers can be meta-parameters")
    return spec


def _end(included: float | None, excluded: float | None) -> float | None:
    """An end of a declared range; a bijector reaches neither kind."""
    end = excluded if included is None else included
    return None if end is None else float(end)


def _numbers(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all numbers of a component that can be exposed."""
    for name, spec in specs(node).items() if is_component(node) else ():
        value = getattr(node, name)
        if spec.kind == "part":
            yield from _numbers(value, f"{prefix}{name}.")
        elif spec.kind == "number" and _is_real(value):
            yield prefix + name


def _is_real(value: Any) -> bool:
    """Whether a leaf is one real number: a float, or an array of one (a whole number counts something)."""
    if isinstance(value, jax.Array):
        return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, float)


def _described(learner: Any) -> str:
    rule = getattr(learner, "rule", None)
    return type(learner).__name__ + (f" with rule {type(rule).__name__}" if rule is not None else "")
