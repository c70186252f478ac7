"""Diagonal linear recurrences ``x_t = f x_{t-1} + b_t`` over complex numbers, in parallel over time.

A step is an affine map, and the composition of affine maps is associative (Blelloch 1990; Smith et al. 2022,
arXiv:2208.04933, section 2.2), also where some steps empty the state (Lu et al. 2023, arXiv:2303.03982,
section 3). Nothing from before a reset is in a later state or its gradient.

**Deviation**: instead of a scan of depth ``log T`` the sequence is cut into ``sqrt(T)`` blocks of ``sqrt(T)``
steps; all blocks run side by side from zero, what comes into each follows block by block, and is added times
the factor's power. That has ``2 sqrt(T)`` steps of depth, and on a CPU takes a fraction of the time of
``jax.lax.associative_scan``, whose levels each copy the whole sequence (``python -m benchmarks.memory``).

Complex numbers are pairs of real arrays: they vectorise better than interleaved ones, and parameters,
optimisers and checkpoints stay real. The reverse pass is the same recurrence in the other direction.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Pair", "advanced", "linear_recurrence", "unless"]

Pair = tuple[Array, Array]  # real and imaginary parts


def advanced(factor: Pair, state: Pair, drive: Pair) -> Pair:
    """One step of the recurrence: ``factor * state + drive``."""
    real, imag = _times(factor, state)
    return real + drive[0], imag + drive[1]


@jax.custom_vjp
def linear_recurrence(factor: Pair, reset: Array, drive: Pair, start: Pair) -> Pair:
    """The states of ``T`` steps.

    Args:
        factor: [N] each, ``f`` of every step that is no reset.
        reset: [T] bool, nothing from before this step counts.
        drive: [T, N] each, ``b``.
        start: [N] each, the state before the first step.

    Returns:
        [T, N] each, the state after every step.
    """
    return _states(factor, reset, drive, start)


def unless(reset: Array, factor: Pair) -> Pair:
    """The factor, zero where there is a reset."""
    return jnp.where(reset, 0.0, factor[0]), jnp.where(reset, 0.0, factor[1])


def _states(factor: Pair, reset: Array, drive: Pair, start: Pair, reverse: bool = False) -> Pair:
    """``linear_recurrence``, or the same from the last step to the first."""
    length = reset.shape[0]
    size = math.isqrt(length - 1) + 1
    resets, real, imag = (_in_blocks(leaf, size) for leaf in (reset[:, None], *drive))
    zeros = jnp.zeros_like(real[0])

    def within(carry: tuple[Pair, Pair], xs: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        state, power = carry
        after = (advanced(unless(xs[0], factor), state, (xs[1], xs[2])), _times(factor, power))
        return after, after

    def across(state: Pair, block: tuple[Array, Pair]) -> tuple[Pair, Pair]:
        return advanced(unless(block[0], power), state, block[1]), state

    one = (jnp.ones_like(factor[0]), jnp.zeros_like(factor[0]))
    begin = ((zeros, zeros), one)
    (last, power), (states, powers) = jax.lax.scan(within, begin, (resets, real, imag), reverse=reverse)
    # What came into a block reaches its steps up to the first reset.
    cut = jax.lax.cummax(resets.astype(jnp.int32), axis=0, reverse=reverse) > 0
    before = jax.lax.scan(across, start, (cut[0 if reverse else -1], last), reverse=reverse)[1]
    reached = unless(cut, (powers[0][:, None], powers[1][:, None]))
    whole = advanced(reached, before, states)
    return _in_sequence(whole[0], length), _in_sequence(whole[1], length)


def _forward(factor: Pair, reset: Array, drive: Pair, start: Pair) -> tuple[Pair, tuple[Any, ...]]:
    states = _states(factor, reset, drive, start)
    return states, (factor, reset, states, start)


def _backward(residuals: tuple[Any, ...], cotangent: Pair) -> tuple[Pair, None, Pair, Pair]:
    """With ``f*`` the conjugate: ``l_t = g_t + f* l_{t+1}``, or ``g_t`` before a reset, backwards in time."""
    factor, reset, states, start = residuals
    conjugate, nothing = _conjugate(factor), (jnp.zeros_like(start[0]), jnp.zeros_like(start[1]))
    following = jnp.concatenate([reset[1:], jnp.ones_like(reset[:1])])
    later = _states(conjugate, following, cotangent, nothing, reverse=True)
    before = tuple(jnp.concatenate([a[None], b[:-1]]) for a, b in zip(start, states, strict=True))
    real, imag = unless(reset[:, None], _times(_conjugate((before[0], before[1])), later))
    d_start = unless(reset[0], _times(conjugate, (later[0][0], later[1][0])))
    return (jnp.sum(real, 0), jnp.sum(imag, 0)), None, later, d_start


linear_recurrence.defvjp(_forward, _backward)


def _in_blocks(leaf: Array, size: int) -> Array:
    """``[T, N]`` to ``[size, blocks, N]``, with zeros behind the end."""
    padded = jnp.pad(leaf, ((0, -leaf.shape[0] % size), (0, 0)))
    return jnp.swapaxes(padded.reshape(-1, size, leaf.shape[1]), 0, 1)


def _in_sequence(leaf: Array, length: int) -> Array:
    """The inverse of ``_in_blocks``."""
    return jnp.swapaxes(leaf, 0, 1).reshape(-1, leaf.shape[2])[:length]


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _conjugate(a: Pair) -> Pair:
    return a[0], -a[1]
