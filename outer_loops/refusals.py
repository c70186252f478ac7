"""What an outer loop says to an inner loop that it cannot move."""

from __future__ import annotations

import jax

from metalab.protocols import InnerLoop, PyTree

__all__ = ["name_of", "require_meta_params"]


def require_meta_params(inner: InnerLoop, meta: PyTree) -> None:
    """Refuses an inner loop whose meta-parameters ``meta`` have no leaves.

    Raises:
        TypeError: they have none.
    """
    if not jax.tree.leaves(meta):
        raise TypeError(
            f"{name_of(inner)} has no meta-parameters: nothing for this outer loop to move; name "
            "hyperparameters under inner.meta, or run it under outer kind fixed"
        )


def name_of(inner: InnerLoop) -> str:
    """An inner loop as an error calls it, with its update rule where it has one."""
    rule = getattr(inner, "rule", None)
    return type(inner).__name__ + (f" with rule {type(rule).__name__}" if rule is not None else "")
