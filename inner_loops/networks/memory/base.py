"""What an agent asks of a memory: the same function one step at a time and over a whole sequence.

Functions take one sequence; the caller vmaps over environments. A reset at step ``t`` empties the memory
before the step is consumed, so that nothing passes from one episode to the next.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jax import Array

from metalab.protocols import PyTree

__all__ = ["SequenceCore"]


@runtime_checkable
class SequenceCore(Protocol):
    """A sequence model with ``F`` inputs and ``D`` features, and what it carries from step to step.

    ``step`` and ``run`` agree to rounding: ``run`` is ``step`` applied in turn, computed however is fastest.
    """

    @property
    def width(self) -> int:
        """D."""
        ...

    def init(self, key: Array, num_inputs: int) -> PyTree:
        """Parameters for ``F = num_inputs``."""
        ...

    def empty(self) -> PyTree:
        """The carry of a memory that has seen nothing."""
        ...

    def step(self, params: PyTree, carry: PyTree, inputs: Array, reset: Array) -> tuple[PyTree, Array]:
        """One step.

        Args:
            params: see ``init``.
            carry: before the step.
            inputs: [F].
            reset: [] bool, the carry is emptied first.

        Returns:
            The carry after the step, and features ``[D]``.
        """
        ...

    def run(self, params: PyTree, carry: PyTree, inputs: Array, reset: Array) -> tuple[PyTree, Array]:
        """``T`` steps.

        Args:
            params: see ``init``.
            carry: before the first step.
            inputs: [T, F].
            reset: [T] bool, the carry is emptied before that step.

        Returns:
            The carry after every step, leaves ``[T, ...]``, and features ``[T, D]``.
        """
        ...
