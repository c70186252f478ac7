"""Diagonal state spaces ``x' = Lambda x + B u``: how they begin, and how they step.

The beginning is HiPPO-LegS without its low-rank part (Gu et al. 2022, arXiv:2206.11893; Smith et al. 2022,
arXiv:2208.04933, section 2.3 and appendix B.1), whose eigenvalues are ``-1/2 +- i w``. They depend on the
size alone: numpy computes them once while a program is traced, so no decomposition is ever part of one
(batched decompositions side by side can wait for each other for ever).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from inner_loops.networks.memory.recurrence import Pair

__all__ = ["DECAY", "hippo_modes", "zero_order_hold"]

DECAY = 0.5  # minus the real part of every eigenvalue of HiPPO-N


@functools.cache
def hippo_modes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """One of each pair of conjugate modes of the normal part of HiPPO-LegS.

    Args:
        size: P, even.

    Returns:
        Frequencies ``w`` [P / 2] above zero, ascending, and the unit eigenvectors [P, P / 2] of
        ``-1/2 + i w``, complex.
    """
    root = np.sqrt(2.0 * np.arange(size) + 1.0)
    # A + p p^T with p_n = sqrt(n + 1/2) is this, less half the identity.
    skew = -0.5 * np.outer(root, root) * np.sign(np.subtract.outer(np.arange(size), np.arange(size)))
    frequencies, vectors = np.linalg.eigh(-1j * skew)
    return frequencies[size // 2 :], vectors[:, size // 2 :]


def zero_order_hold(eigenvalue: Pair, step: Array) -> tuple[Pair, Pair]:
    """A state space of which the input stands still for ``step`` (Smith et al. 2022, eq. 6).

    Args:
        eigenvalue: [N] each, not zero.
        step: [N] time.

    Returns:
        ``exp(Lambda step)`` and ``(exp(Lambda step) - 1) / Lambda``, which the input matrix is multiplied by;
        [N] each.
    """
    lambda_ = lax.complex(*eigenvalue)
    factor = jnp.exp(lambda_ * step)
    weight = (factor - 1.0) / lambda_
    return (jnp.real(factor), jnp.imag(factor)), (jnp.real(weight), jnp.imag(weight))
