"""Gated recurrent units (Cho et al. 2014, arXiv:1406.1078) as a memory.

The inputs of all steps are projected by one matrix product; the recurrence is a scan.

**Deviation**: the reset gate acts on the recurrent product (``inner_loops.networks.recurrent``), and weights
are LeCun-normal: random orthogonal matrices need a decomposition that must not be vmapped.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.recurrent import CoreParams, core_init, gru_step
from metalab.components import component, static

__all__ = ["GRU"]


@component
class GRU:
    """Gated recurrent units, one layer or several on top of each other (Cho et al. 2014)."""

    width: int = static(64, doc="D, units of every layer", at_least=1)
    layers: int = static(1, doc="layers", at_least=1)

    def init(self, key: Array, num_inputs: int) -> tuple[CoreParams, ...]:
        """The weights of every layer."""
        sizes = (num_inputs, *(self.width for _ in range(self.layers - 1)))
        keys = jax.random.split(key, self.layers)
        return tuple(core_init(keys[i], "gru", size, self.width) for i, size in enumerate(sizes))

    def empty(self) -> tuple[Array, ...]:
        """[D] zeros for every layer."""
        return tuple(jnp.zeros(self.width) for _ in range(self.layers))

    def step(
        self, params: tuple[CoreParams, ...], carry: tuple[Array, ...], inputs: Array, reset: Array
    ) -> tuple[tuple[Array, ...], Array]:
        """One step, see ``SequenceCore``."""
        after = []
        for layer, hidden in zip(params, carry, strict=True):
            inputs = _advanced(layer, inputs @ layer.inputs + layer.bias, hidden, reset)
            after.append(inputs)
        return tuple(after), inputs

    def run(
        self, params: tuple[CoreParams, ...], carry: tuple[Array, ...], inputs: Array, reset: Array
    ) -> tuple[tuple[Array, ...], Array]:
        """``T`` steps, see ``SequenceCore``."""
        after = []
        for layer, hidden in zip(params, carry, strict=True):
            inputs = _scanned(layer, inputs @ layer.inputs + layer.bias, hidden, reset)
            after.append(inputs)
        return tuple(after), inputs


def _scanned(layer: CoreParams, projected: Array, hidden: Array, reset: Array) -> Array:
    """[T, D] states for projected inputs ``[T, 3 * D]``."""

    def body(hidden: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden = _advanced(layer, xs[0], hidden, xs[1])
        return hidden, hidden

    return jax.lax.scan(body, hidden, (projected, reset))[1]


def _advanced(layer: CoreParams, projected: Array, hidden: Array, reset: Array) -> Array:
    hidden = jnp.where(reset, 0.0, hidden)
    return gru_step(projected, hidden @ layer.recurrent, hidden)[-1]
