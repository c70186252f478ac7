"""Diagonal linear recurrences ``x_t = f_t x_{t-1} + b_t`` over complex numbers, in parallel over time.

A step is an affine map, and the composition of affine maps is associative (Blelloch 1990; Smith et al. 2022,
arXiv:2208.04933, section 2.2). A reset is a factor of zero: that is the operator of Lu et al. (2023,
arXiv:2303.03982, section 3), which carries a flag beside the factor, with the flag multiplied into it. What
lies before a zero is multiplied by zero, in the states and in the gradient.

**Deviation**: instead of a scan of depth ``log T`` the sequence is cut into ``sqrt(T)`` blocks of ``sqrt(T)``
steps; the maps within all blocks are composed side by side, then the blocks one after another. That is twice
the work of a plain loop at ``2 sqrt(T)`` steps of depth, and on a CPU a fraction of the time of
``jax.lax.associative_scan``, whose levels each copy the whole sequence (``python -m benchmarks.memory``).

Complex numbers are pairs of real arrays: they vectorise better than interleaved ones, and parameters,
optimisers and checkpoints stay real. The reverse pass is the same recurrence in the other direction.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Pair", "advanced", "composed", "linear_recurrence"]

Pair = tuple[Array, Array]  # real and imaginary parts


def advanced(factor: Pair, state: Pair, drive: Pair) -> Pair:
    """One step of the recurrence: ``factor * state + drive``."""
    real, imag = _times(factor, state)
    return real + drive[0], imag + drive[1]


def composed(earlier: tuple[Pair, Pair], later: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    """The affine map ``earlier`` and then ``later``, each a factor and a drive."""
    return _times(later[0], earlier[0]), advanced(later[0], earlier[1], later[1])


@jax.custom_vjp
def linear_recurrence(factor: Pair, drive: Pair, start: Pair) -> Pair:
    """The states of ``T`` steps.

    Args:
        factor: [T, N] each, ``f``; zero: nothing from before this step counts.
        drive: [T, N] each, ``b``.
        start: [N] each, the state before the first step.

    Returns:
        [T, N] each, the state after every step.
    """
    return _states(factor, drive, start)


def _states(factor: Pair, drive: Pair, start: Pair, reverse: bool = False) -> Pair:
    """``linear_recurrence``, or the same from the last step to the first."""
    length = drive[0].shape[0]
    size = math.isqrt(length - 1) + 1
    maps = jax.tree.map(lambda leaf: _in_blocks(leaf, size), (factor, drive))
    zeros = jnp.zeros_like(maps[0][0][0])

    def within(earlier: tuple[Pair, Pair], step: tuple[Pair, Pair]) -> tuple[tuple[Pair, Pair], ...]:
        both = composed(earlier, step)
        return both, both

    def across(state: Pair, block: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
        return advanced(block[0], state, block[1]), state

    identity = ((zeros + 1.0, zeros), (zeros, zeros))
    blocks, maps = jax.lax.scan(within, identity, maps, reverse=reverse)
    before = jax.lax.scan(across, start, blocks, reverse=reverse)[1]
    real, imag = (_in_sequence(leaf, length) for leaf in advanced(maps[0], before, maps[1]))
    return real, imag


def _forward(factor: Pair, drive: Pair, start: Pair) -> tuple[Pair, tuple[Pair, Pair, Pair]]:
    states = _states(factor, drive, start)
    return states, (factor, states, start)


def _backward(residuals: tuple[Pair, Pair, Pair], cotangent: Pair) -> tuple[Pair, Pair, Pair]:
    """With ``f*`` the conjugate: ``l_t = g_t + f*_{t+1} l_{t+1}`` from the last step to the first."""
    factor, states, start = residuals
    real, imag = (jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])]) for leaf in _conjugate(factor))
    nothing = (jnp.zeros_like(start[0]), jnp.zeros_like(start[1]))
    later = _states((real, imag), cotangent, nothing, reverse=True)
    before = tuple(jnp.concatenate([a[None], b[:-1]]) for a, b in zip(start, states, strict=True))
    d_factor = _times(_conjugate((before[0], before[1])), later)
    d_start = _times(_conjugate((factor[0][0], factor[1][0])), (later[0][0], later[1][0]))
    return d_factor, later, d_start


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
