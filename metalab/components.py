"""Components: frozen pytree dataclasses that a sweep file can name and a program can stack.

Every loop, rule, network, environment, task distribution and optimiser setting is a component. Its
fields say what they are:

* ``number``: may vary continuously. A leaf of the pytree, so points of a sweep that differ only in
  numbers share one XLA program and are stacked into its lanes.
* ``static``: a shape, a count, a name, a size. Part of the pytree's structure, so a difference makes
  another program.
* ``part``: another component.

The same declarations are the configuration schema: bounds, choices and documentation stand here once and
no YAML file repeats a default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from metalab.trees import Tree

__all__ = ["FieldSpec", "as_arrays", "component", "is_component", "number", "part", "specs", "static"]

T = TypeVar("T")
_METADATA = "metalab"


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """What a component declares of one field.

    ``kind`` is ``"number"``, ``"static"`` or ``"part"``; bounds are inclusive (``at_least``, ``at_most``)
    or exclusive (``above``, ``below``); ``choices`` lists the allowed values; ``group`` names the catalogue
    a part is looked up in.
    """

    kind: str
    doc: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    group: str | None = None


def number(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares a numeric field that is a leaf: ``float``, ``int``, or a tuple of floats.

    Args:
        default: the value when the sweep file is silent; none makes the field required.
        doc: one line for the researcher who reads ``metalab list``.
        at_least, at_most, above, below: the allowed range, checked at composition.
    """
    spec = FieldSpec("number", doc, at_least=at_least, at_most=at_most, above=above, below=below)
    return dataclasses.field(default=default, metadata={_METADATA: spec})


def static(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Declares a field that is part of the program's shape: a count, a name, a size, a switch."""
    allowed = None if choices is None else tuple(choices)
    spec = FieldSpec("static", doc, at_least=at_least, at_most=at_most, choices=allowed)
    return dataclasses.field(default=default, metadata={_METADATA: spec})


def part(default: Any = dataclasses.MISSING, *, doc: str, group: str) -> Any:
    """Declares a field that holds another component of the catalogue ``group``."""
    return dataclasses.field(default=default, metadata={_METADATA: FieldSpec("part", doc, group=group)})


# Type checkers see every field as optional: they read a default only where it is given by keyword.
@dataclass_transform(frozen_default=True, kw_only_default=True)
def component(cls: type[T]) -> type[T]:
    """Makes a class a component: a frozen, keyword-only dataclass that is a pytree of its numbers.

    Raises:
        TypeError: a field was declared without ``number``, ``static`` or ``part``.
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    for field in dataclasses.fields(made):  # pyright: ignore[reportArgumentType]
        if _METADATA not in field.metadata:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}.{field.name} does not say what it is: "
                "declare it with number(), static() or part() of metalab.components"
            )
    data = [name for name, spec in specs(made).items() if spec.kind != "static"]
    meta = [name for name, spec in specs(made).items() if spec.kind == "static"]
    return jax.tree_util.register_dataclass(made, data_fields=data, meta_fields=meta)


def is_component(thing: object) -> bool:
    """Whether ``thing`` (a class or an instance) was made by ``component``."""
    return dataclasses.is_dataclass(thing) and all(_METADATA in f.metadata for f in dataclasses.fields(thing))


def specs(thing: Any) -> dict[str, FieldSpec]:
    """Field name to ``FieldSpec``, in declaration order, of a component or its class."""
    return {field.name: field.metadata[_METADATA] for field in dataclasses.fields(thing)}


def as_arrays(tree: Tree) -> Tree:
    """Makes every number of a component a strongly typed array: float32, or int32 for integers.

    Python numbers would be weakly typed inside a program, and a carry that changes its type is refused by
    ``scan`` or compiles twice.
    """

    def cast(leaf: Any) -> Any:
        # An array of numpy's may hold whole numbers as well: lanes are stacked on the host.
        whole = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        dtype = jnp.int32 if whole else jnp.result_type(float)
        return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf, dtype)

    return jax.tree.map(cast, tree)
