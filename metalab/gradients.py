"""Gradients of inner losses that are themselves to be differentiated, and cotangents kept in bounds.

An inner loop takes its gradients through ``inner_grad``; how they are differentiated again is the outer
loop's choice (``differentiate_in``):

* ``mixed`` (the default): the reverse pass of the inner gradient is one forward-mode product. For a
  cotangent ``v`` on ``g = grad_theta loss(theta, args)`` symmetry of second derivatives gives
  ``v . dg/dtheta = H v`` and ``v . dg/dargs = d(grad_args loss)/dtheta v``: both are the directional
  derivative of the full gradient along ``(v, 0)``. No activation of the inner backward pass is stored
  (Kemaev et al. 2025, arXiv:2505.00793).
* ``reverse``: reverse over reverse, as plain ``jax.grad`` does it.

Every inner gradient carries a name, so that a rematerialised inner update may keep it
(``metalab.lifetimes.unroll``): one array the size of the parameters then spares the backward pass a second
forward and backward pass of the inner loss.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from metalab.protocols import PyTree
from metalab.trees import all_finite

__all__ = ["INNER_GRADIENT", "MODES", "differentiate_in", "guard", "inner_grad"]

MODES = ("mixed", "reverse")
INNER_GRADIENT = "metalab_inner_gradient"  # the name of every inner gradient, for rematerialisation
_mode: contextvars.ContextVar[str] = contextvars.ContextVar("metalab_inner_gradient_mode", default="mixed")


@contextlib.contextmanager
def differentiate_in(mode: str) -> Iterator[None]:
    """Traces what is inside with inner gradients differentiated in ``mode``.

    Raises:
        ValueError: the mode is none of ``MODES``.
        TypeError: in mixed mode an inner loss closes over a value that is differentiated: its gradient
            would be lost.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode of differentiation {mode!r}: expected one of {', '.join(MODES)}")
    token = _mode.set(mode)
    try:
        yield
    except Exception as error:
        if mode == "mixed" and _tells_of_closure(error):
            raise TypeError(
                "an inner loss closes over a value that depends on the meta-parameters, and mixed mode would "
                "lose its gradient: make it an argument, inner_grad(loss)(params, value), or differentiate "
                "in reverse mode"
            ) from error
        raise
    finally:
        _mode.reset(token)


def inner_grad(loss: Callable[..., Array]) -> Callable[..., PyTree]:
    """``jax.grad(loss)`` with respect to its first argument, cheap to differentiate again.

    Args:
        loss: ``loss(theta, *args) -> []``. Everything that the result is to be differentiated by must be an
            argument: in mixed mode a differentiated value that ``loss`` closes over is refused (by
            ``differentiate_in``, in words).

    Returns:
        ``gradient(theta, *args)``, a pytree like ``theta``.
    """
    gradient = jax.grad(loss) if _mode.get() == "reverse" else _forward_over_reverse(loss)

    def named(theta: PyTree, *args: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: checkpoint_name(leaf, INNER_GRADIENT), gradient(theta, *args))

    return named


def _forward_over_reverse(loss: Callable[..., Array]) -> Callable[..., PyTree]:
    """``jax.grad(loss)`` whose own reverse pass is a forward-mode product."""

    @jax.custom_vjp
    def gradient(theta: PyTree, *args: PyTree) -> PyTree:
        return jax.grad(loss)(theta, *args)

    def forward(theta: PyTree, *args: PyTree) -> tuple[PyTree, Any]:
        return gradient(theta, *args), (theta, args)

    def backward(residuals: Any, cotangent: PyTree) -> PyTree:
        theta, args = residuals
        everything = tuple(range(1 + len(args)))

        def full_gradient(point: PyTree) -> PyTree:
            return jax.grad(loss, argnums=everything, allow_int=True)(point, *args)

        return jax.jvp(full_gradient, (theta,), (cotangent,))[1]

    gradient.defvjp(forward, backward)
    return gradient


def _tells_of_closure(error: Exception) -> bool:
    """JAX refuses a closed-over value at once (its tracer has escaped), or inside of a scan by a rule."""
    return isinstance(error, jax.errors.UnexpectedTracerError) or "closed-over value" in str(error)


@jax.custom_vjp
def guard(tree: PyTree, max_norm: Array | float) -> PyTree:
    """The identity, whose cotangent is clipped to ``max_norm`` and zeroed where it is not finite.

    Put on what a learner receives from the meta-parameters it bounds what one lifetime can do to the
    meta-gradient, without one weight gradient per lifetime.
    """
    del max_norm
    return tree


def _guard_forward(tree: PyTree, max_norm: Array | float) -> tuple[PyTree, Array | float]:
    return tree, max_norm


def _guard_backward(max_norm: Array | float, cotangent: PyTree) -> tuple[PyTree, Array]:
    squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(cotangent))
    finite = all_finite(cotangent)
    scale = jnp.minimum(1.0, max_norm * jax.lax.rsqrt(squares + 1e-30))

    def bound(leaf: Array) -> Array:
        return jnp.where(finite, leaf * scale.astype(leaf.dtype), jnp.zeros_like(leaf))

    return jax.tree.map(bound, cotangent), jnp.zeros_like(jnp.asarray(max_norm))


guard.defvjp(_guard_forward, _guard_backward)
