"""Streams of examples: what a learner that is taught by examples draws its batches from."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metalab.protocols import PyTree

__all__ = ["Examples", "HostStream", "StoredStream", "Stream", "stored", "widened"]

_ON_DEVICE = 2**28  # bytes of an array that lie in the program as a constant; a larger one is fed by the host


class Examples(NamedTuple):
    """``N`` examples.

    Attributes:
        inputs: what a model learns from and a rater sees, leaves ``[N, ...]``.
        level: [N] how corrupted each one is, from 0 (clean) to 1: known to oracles and reports alone.
        kind: [N] int32, which of the stream's corruptions made it so.
    """

    inputs: PyTree
    level: Array
    kind: Array


class Stream(Protocol):
    """Examples in disjoint parts: to learn from, to be judged by, and two that are only reported."""

    @property
    def levels(self) -> tuple[float, ...]:
        """The corruption levels of the training part, in rising order."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of its corruptions, which ``Examples.kind`` counts."""
        ...

    def train(self, key: Array, count: int) -> Examples:
        """Draws from the training part, corrupted."""
        ...

    def outer(self, key: Array, count: int) -> Examples:
        """Draws from the part that the outer loss is about."""
        ...

    def validation(self, count: int) -> Examples:
        """Examples of the part that nothing is trained on, clean; always the same ones."""
        ...

    def rated(self, count: int) -> Examples:
        """The same part corrupted like the training part, always the same ones: ratings are judged by it."""
        ...


@runtime_checkable
class HostStream(Protocol):
    """A stream that may be too large for the device: the host then draws batches ahead of time."""

    @property
    def on_host(self) -> bool:
        """Whether the host should draw: the program would have to wait for every batch."""
        ...

    def drawn_by_host(self, rng: np.random.Generator, part: str, shape: tuple[int, ...]) -> Examples:
        """Draws from the part ``train`` or ``outer``: numpy leaves ``[*shape, ...]`` as stored."""
        ...


class StoredStream:
    """A stream whose parts are arrays on the host: subclasses say where they come from.

    An array of up to 256 MiB becomes a constant of the program. A larger one stays where it is: training gets
    its batches ahead of time (``HostStream``), and whatever else draws (fresh models that are only
    evaluated) fetches its rows from there while the device waits.
    """

    def parts(self) -> dict[str, Examples]:
        """``train``, ``outer``, ``validation`` and ``rated``, as ``stored``; made once a process."""
        raise NotImplementedError

    @property
    def on_host(self) -> bool:
        """See ``HostStream``."""
        drawn = (self.parts()[name] for name in ("train", "outer"))
        return any(leaf.nbytes > _ON_DEVICE for part in drawn for leaf in jax.tree.leaves(part))

    def drawn_by_host(self, rng: np.random.Generator, part: str, shape: tuple[int, ...]) -> Examples:
        """See ``HostStream``; in the narrow types in which they are stored."""
        held = self.parts()[part]
        rows = rng.integers(len(held.level), size=shape)
        return jax.tree.map(lambda leaf: leaf[rows], held)

    def train(self, key: Array, count: int) -> Examples:
        """See ``Stream``."""
        return _drawn(self.parts()["train"], key, count)

    def outer(self, key: Array, count: int) -> Examples:
        """See ``Stream``."""
        return _drawn(self.parts()["outer"], key, count)

    def validation(self, count: int) -> Examples:
        """See ``Stream``; spread evenly over the part, all of it if it has fewer."""
        return _spread(self.parts()["validation"], count)

    def rated(self, count: int) -> Examples:
        """See ``Stream``; spread evenly over the part, all of it if it has fewer."""
        return _spread(self.parts()["rated"], count)


def stored(inputs: Any, level: Any, kind: Any) -> Examples:
    """Examples on the host: numpy leaves ``[n, ...]``."""
    return Examples(inputs, level, kind)


def widened(examples: Examples) -> Examples:
    """Whole numbers as int32: symbols are stored, and come from the host, in the narrowest type."""

    def wide(leaf: Array) -> Array:
        return leaf.astype(jnp.int32) if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf

    return jax.tree.map(wide, examples)


def _drawn(part: Examples, key: Array, count: int) -> Examples:
    return _rows_of(part, jax.random.randint(key, (count,), 0, len(part.level)))


def _spread(part: Examples, count: int) -> Examples:
    size = len(part.level)
    return _rows_of(part, jnp.asarray(np.linspace(0, size - 1, min(count, size)).astype(np.int32)))


def _rows_of(part: Examples, rows: Array) -> Examples:
    return widened(jax.tree.map(lambda leaf: _gathered(leaf, rows), part))


def _gathered(leaf: np.ndarray, rows: Array) -> Array:
    """``[n, ...]`` at rows [m]: from the device, or from the host where it would fill the device."""
    if leaf.nbytes <= _ON_DEVICE:
        return jnp.asarray(leaf)[rows]
    shape = jax.ShapeDtypeStruct((*rows.shape, *leaf.shape[1:]), leaf.dtype)
    return jax.pure_callback(lambda at: leaf[np.asarray(at)], shape, rows, vmap_method="expand_dims")
