"""Optimiser settings as pytrees of numbers.

An optax transformation is a closure over floats and cannot be stacked; these hold the numbers, and
``make`` builds the transformation inside the trace.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from metalab.components import component, number, static

__all__ = ["Adam", "OptimizerSettings", "Sgd"]


@runtime_checkable
class OptimizerSettings(Protocol):
    """Numbers that make an optimiser."""

    def make(self, learning_rate: Array | float | None = None) -> optax.GradientTransformation:
        """The transformation; ``learning_rate`` overrides the field (a per-lifetime rate)."""
        ...


@component
class Sgd:
    """Plain stochastic gradient descent, optionally clipped by global norm."""

    learning_rate: float = number(40.0, doc="step size", above=0.0)
    max_grad_norm: float | None = number(None, doc="clip the gradient to this global norm", above=0.0)

    def make(self, learning_rate: Array | float | None = None) -> optax.GradientTransformation:
        """See ``OptimizerSettings``."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        return optax.chain(_clip(self.max_grad_norm), optax.scale_by_learning_rate(rate))


@component
class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with clipping by global norm and a cosine schedule.

    ``differentiable`` stops the gradient at the second moment and adds ``eps`` inside the root: without
    that the derivative of the update is infinite wherever a coordinate's gradient is exactly zero.
    ``decay_steps`` is the length of one cosine cycle from ``learning_rate`` down to ``final_fraction`` of
    it; each of the ``cycles`` restarts warm, at ``restart_fraction`` of the last peak. ``decay_rate`` is the
    other schedule, a factor on the rate after every step, again down to ``final_fraction`` of it.
    """

    learning_rate: float = number(1e-3, doc="peak step size", above=0.0)
    b1: float = number(0.9, doc="decay of the first moment", at_least=0.0, below=1.0)
    b2: float = number(0.999, doc="decay of the second moment", at_least=0.0, below=1.0)
    eps: float = number(1e-8, doc="added to the root of the second moment", above=0.0)
    max_grad_norm: float | None = number(None, doc="clip the gradient to this global norm", above=0.0)
    decay_steps: float | None = number(None, doc="length of one cosine cycle in steps", above=0.0)
    decay_rate: float | None = number(
        None, doc="factor on the rate after every step, instead of cycles", above=0.0, at_most=1.0
    )
    final_fraction: float = number(
        0.0, doc="rate at a cycle's end or where decay stops, of its peak", at_least=0.0, at_most=1.0
    )
    cycles: int = static(1, doc="cosine cycles; a new one restarts warm", at_least=1)
    restart_fraction: float = number(0.5, doc="peak of a cycle, of the one before", above=0.0, at_most=1.0)
    weight_decay: float = number(0.0, doc="decoupled weight decay", at_least=0.0)
    differentiable: bool = static(False, doc="safe to differentiate through")

    def __post_init__(self) -> None:
        if self.decay_steps is not None and self.decay_rate is not None:
            raise ValueError("decay_rate: the rate follows decay_steps already; set one of the two")

    def make(self, learning_rate: Array | float | None = None) -> optax.GradientTransformation:
        """See ``OptimizerSettings``."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        if self.differentiable:
            scale = _scale_by_stopped_adam(self.b1, self.b2, self.eps)
        else:
            scale = optax.scale_by_adam(self.b1, self.b2, self.eps)
        decay = optax.add_decayed_weights(self.weight_decay)
        return optax.chain(_clip(self.max_grad_norm), scale, decay, self._scale(rate))

    def _scale(self, rate: Array | float) -> optax.GradientTransformation:
        factor = self.decay_rate
        if factor is not None:
            least = self.final_fraction
            return optax.scale_by_learning_rate(lambda count: rate * jnp.maximum(factor**count, least))
        if self.decay_steps is None:
            return optax.scale_by_learning_rate(rate)
        length = self.decay_steps

        def schedule(count: Any) -> Array:
            cycle = jnp.minimum(jnp.floor(count / length), self.cycles - 1)
            phase = jnp.clip(count / length - cycle, 0.0, 1.0)
            shape = 0.5 * (1.0 + jnp.cos(jnp.pi * phase))
            peak = rate * self.restart_fraction**cycle
            return peak * (self.final_fraction + (1.0 - self.final_fraction) * shape)

        return optax.scale_by_learning_rate(schedule)


def _clip(max_norm: Array | float | None) -> optax.GradientTransformation:
    if max_norm is None:
        return optax.identity()

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None):
        del params
        # The small constant keeps the derivative of the norm finite at zero.
        squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(updates))
        scale = jnp.minimum(1.0, max_norm * jax.lax.rsqrt(squares + 1e-20))
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_stopped_adam(
    b1: Array | float, b2: Array | float, eps: Array | float
) -> optax.GradientTransformation:
    base = optax.scale_by_adam(b1, b2, eps)

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None):
        del params
        count = state.count + 1  # pyright: ignore[reportAttributeAccessIssue]
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, updates, state.mu)  # pyright: ignore
        nu = jax.tree.map(
            lambda g, v: b2 * v + (1 - b2) * jnp.square(jax.lax.stop_gradient(g)),
            updates,
            state.nu,  # pyright: ignore[reportAttributeAccessIssue]
        )

        def scaled(m: Array, v: Array) -> Array:
            root = jnp.sqrt(v / (1 - b2**count) + eps**2)
            return (m / (1 - b1**count)) / jax.lax.stop_gradient(root)

        new_state = optax.ScaleByAdamState(count=count, mu=mu, nu=nu)
        return jax.tree.map(scaled, mu, nu), new_state

    return optax.GradientTransformation(base.init, update)
