"""Small helpers on pytrees: select, stack, group, test for finiteness."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

__all__ = ["Tree", "all_finite", "group_by_structure", "lane", "select", "stack"]

Tree = TypeVar("Tree")
Item = TypeVar("Item")


def select(condition: jax.Array, on_true: Tree, on_false: Tree) -> Tree:
    """``where`` on every leaf; ``condition`` is a scalar, or broadcasts from the left (one entry a slot)."""

    def pick(a: Any, b: Any) -> Any:
        extra = jnp.ndim(a) - jnp.ndim(condition)
        return jnp.where(jnp.reshape(condition, jnp.shape(condition) + (1,) * extra), a, b)

    return jax.tree.map(pick, on_true, on_false)


def all_finite(tree: Any) -> jax.Array:
    """[] bool: no leaf of inexact type holds a NaN or an infinity."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.asarray(True)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stacks equally structured pytrees along a new leading axis (the lanes of a pack).

    Raises:
        ValueError: the structures differ; they belong to different programs.
    """
    structures = {jax.tree.structure(tree) for tree in trees}
    if len(structures) != 1:
        raise ValueError(f"cannot stack {len(structures)} different structures: they are different programs")
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def lane(tree: Tree, index: int) -> Tree:
    """The ``index``-th entry along every leaf's leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def group_by_structure(items: Iterable[Item], tree_of: Callable[[Item], Any]) -> dict[Hashable, list[Item]]:
    """Groups items by ``jax.tree.structure`` of their loops: one group is one XLA program."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(jax.tree.structure(tree_of(item)), []).append(item)
    return groups
