"""Diagonal linear recurrences ``x_t = f_t x_{t-1} + b_t`` over complex numbers, in parallel over time.

The step from ``t`` to ``t + 1`` is an affine map, and the composition of affine maps is associative: all
states come from a scan of depth ``log T`` (Blelloch 1990; Smith et al. 2022, arXiv:2208.04933, section 2.2).
A reset is a factor of zero. That is the operator of Lu et al. (2023, arXiv:2303.03982, section 3), which
carries a flag beside the factor, with the flag multiplied into it: what lies before a zero is multiplied by
zero, in the states and in the gradient.

Complex numbers are pairs of real arrays: they vectorise better than interleaved ones, and parameters,
optimisers and checkpoints stay real. The reverse pass is one scan in the other direction, so no level of the
forward scan is kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Pair", "advanced", "linear_recurrence"]

Pair = tuple[Array, Array]  # real and imaginary parts


def advanced(factor: Pair, state: Pair, drive: Pair) -> Pair:
    """One step of the recurrence: ``factor * state + drive``."""
    real, imag = _times(factor, state)
    return real + drive[0], imag + drive[1]


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


def _states(factor: Pair, drive: Pair, start: Pair) -> Pair:
    first = advanced(_at(factor, 0), start, _at(drive, 0))
    drive = (drive[0].at[0].set(first[0]), drive[1].at[0].set(first[1]))
    return jax.lax.associative_scan(_composed, (factor, drive))[1]


def _composed(earlier: tuple[Pair, Pair], later: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    """The affine map ``earlier`` and then ``later``, each a factor and a drive."""
    return _times(later[0], earlier[0]), advanced(later[0], earlier[1], later[1])


def _forward(factor: Pair, drive: Pair, start: Pair) -> tuple[Pair, tuple[Pair, Pair, Pair]]:
    states = _states(factor, drive, start)
    return states, (factor, states, start)


def _backward(residuals: tuple[Pair, Pair, Pair], cotangent: Pair) -> tuple[Pair, Pair, Pair]:
    """With ``f*`` the conjugate: ``l_t = g_t + f*_{t+1} l_{t+1}`` from the last step to the first."""
    factor, states, start = residuals
    following = tuple(jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])]) for leaf in _conjugate(factor))
    later = jax.lax.associative_scan(_composed, (following, cotangent), reverse=True)[1]
    before = tuple(jnp.concatenate([a[None], b[:-1]]) for a, b in zip(start, states, strict=True))
    d_factor = _times(_conjugate((before[0], before[1])), later)
    d_start = _times(_conjugate(_at(factor, 0)), _at(later, 0))
    return d_factor, later, d_start


linear_recurrence.defvjp(_forward, _backward)


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _conjugate(a: Pair) -> Pair:
    return a[0], -a[1]


def _at(a: Pair, index: int) -> Pair:
    return a[0][index], a[1][index]
