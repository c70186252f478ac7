"""Recurrent cores that read a trajectory backwards in time, with a reverse pass written by hand.

The rule of LPG is such a core, and 60 to 75 % of a meta-step is spent in it. Plain ``scan`` stores every
gate of every step and forms the weight gradient step by step. Here the states are computed by a scan that
is never differentiated; then all gates of the sequence are formed again by *one* matrix product from the
known states, and the gradient of the recurrence is a custom reverse rule on those gates. The weight
gradients are therefore the transposes of two large products, over time, environments and lifetimes at
once, and only the states need to be kept for the backward pass.

Functions take one sequence ``[T, ...]``; the caller vmaps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metalab.lifetimes import keep

__all__ = ["CORES", "CoreParams", "core_init", "gru", "gru_step", "lstm", "lstm_step"]


class CoreParams(NamedTuple):
    """Weights of a recurrent core with ``G`` gates and ``H`` units.

    Attributes:
        inputs: [D, G * H].
        recurrent: [H, G * H].
        bias: [G * H].
    """

    inputs: Array
    recurrent: Array
    bias: Array


def core_init(key: Array, core: str, num_inputs: int, hidden_size: int) -> CoreParams:
    """LeCun-normal weights; an LSTM's forget gates start open (bias 1).

    Random orthogonal matrices are avoided: a vmapped QR can block for ever on a machine of few cores.
    """
    gates = {"lstm": 4, "gru": 3}[core]
    input_key, recurrent_key = jax.random.split(key)
    inputs = jax.random.normal(input_key, (num_inputs, gates * hidden_size)) / jnp.sqrt(num_inputs)
    recurrent = jax.random.normal(recurrent_key, (hidden_size, gates * hidden_size)) / jnp.sqrt(hidden_size)
    bias = jnp.zeros(gates * hidden_size)
    if core == "lstm":
        bias = bias.at[hidden_size : 2 * hidden_size].set(1.0)
    return CoreParams(inputs, recurrent, bias)


def lstm(params: CoreParams, inputs: Array, reset: Array) -> Array:
    """Reverse-time LSTM (gates in the order input, forget, cell, output).

    Args:
        params: the core's weights.
        inputs: [T, D].
        reset: [T] bool, the state is zeroed before step t is consumed.

    Returns:
        [T, H] outputs; the one at t has seen t, t + 1, ... up to the next reset.
    """
    fixed, seen = jax.lax.stop_gradient((params, inputs))
    hidden, cell = keep(_lstm_states(fixed, seen, reset))
    # One product for both weights: its transpose is the only other reader of the gates' gradient.
    read = jnp.concatenate([seen, _carried(hidden, reset)], axis=-1)
    gates = read @ jnp.concatenate([params.inputs, params.recurrent]) + params.bias
    return _lstm_replay(gates, inputs, hidden, cell, fixed, reset)


def gru(params: CoreParams, inputs: Array, reset: Array) -> Array:
    """Reverse-time GRU (gates in the order reset, update, candidate); arguments as ``lstm``.

    The candidate is ``tanh(x W + b + r * (h U))``: the reset gate acts on the recurrent product.
    """
    fixed, seen = jax.lax.stop_gradient((params, inputs))
    hidden = keep(_gru_states(fixed, seen, reset))
    projected = seen @ params.inputs + params.bias
    recurrent = _carried(hidden, reset) @ params.recurrent
    return _gru_replay(projected, recurrent, inputs, hidden, fixed, reset)


CORES = {"lstm": lstm, "gru": gru}


def _carried(states: Array, reset: Array) -> Array:
    """[T, H] the state that step t starts from: that of t + 1, zero at the end and where reset."""
    shifted = jnp.concatenate([states[1:], jnp.zeros_like(states[:1])])
    return jnp.where(reset[:, None], 0.0, shifted)


def lstm_step(gates: Array, cell: Array) -> tuple[Array, Array]:
    """Hidden state and cells ``[..., H]`` after gates ``[..., 4 * H]`` (input, forget, cell, output)."""
    i, f, g, o = _lstm_gates(gates)
    cell = f * cell + i * g
    return o * jnp.tanh(cell), cell


def _lstm_gates(gates: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _lstm_states(params: CoreParams, inputs: Array, reset: Array) -> tuple[Array, Array]:
    def body(carry: tuple[Array, Array], xs: tuple[Array, Array]):
        hidden, cell = (jnp.where(xs[1], 0.0, x) for x in carry)
        gates = xs[0] @ params.inputs + params.bias + hidden @ params.recurrent
        after = lstm_step(gates, cell)
        return after, after

    zero = jnp.zeros(params.recurrent.shape[0], inputs.dtype)
    return jax.lax.scan(body, (zero, zero), (inputs, reset), reverse=True)[1]


@jax.custom_vjp
def _lstm_replay(
    gates: Array, inputs: Array, hidden: Array, cell: Array, params: CoreParams, reset: Array
) -> Array:
    """``hidden`` as a function of all gates and inputs; the rest are constants of the reverse rule.

    The gates carry the gradient to the weights, the inputs their own: formed step by step beside the
    recurrence, it spares another pass over the gates' gradient.
    """
    del gates, inputs, cell, params, reset
    return hidden


def _lstm_replay_forward(
    gates: Array, inputs: Array, hidden: Array, cell: Array, params: CoreParams, reset: Array
):
    # The gates' values are not kept: computing them again beside the reverse scan is cheaper than 4 H
    # numbers a step, and leaves the large product of ``lstm`` dead in the forward pass.
    del gates
    return hidden, (inputs, hidden, cell, params, reset)


def _lstm_replay_backward(residuals: tuple[Any, ...], d_output: Array):
    inputs, hidden, cell, params, reset = residuals

    def body(carry: tuple[Array, Array], xs: tuple[Array, ...]):
        d_out, x_t, h_tm1, c_t, c_tm1, reset_t = xs
        i, f, g, o = _lstm_gates(x_t @ params.inputs + params.bias + h_tm1 @ params.recurrent)
        squashed = jnp.tanh(c_t)
        d_hidden = carry[0] + d_out
        d_cell = carry[1] + d_hidden * o * (1.0 - squashed**2)
        d_gates = jnp.concatenate(
            [
                d_cell * g * i * (1.0 - i),
                d_cell * c_tm1 * f * (1.0 - f),
                d_cell * i * (1.0 - g**2),
                d_hidden * squashed * o * (1.0 - o),
            ],
            axis=-1,
        )
        d_hidden, d_cell = (jnp.where(reset_t, 0.0, x) for x in (d_gates @ params.recurrent.T, d_cell * f))
        return (d_hidden, d_cell), (d_gates, d_gates @ params.inputs.T)

    zero = jnp.zeros_like(d_output[0])
    xs = (d_output, inputs, _carried(hidden, reset), cell, _carried(cell, reset), reset)
    # The core ran from the last step to the first, so its reverse pass runs forwards.
    d_gates, d_inputs = jax.lax.scan(body, (zero, zero), xs)[1]
    return d_gates, d_inputs, None, None, None, None


_lstm_replay.defvjp(_lstm_replay_forward, _lstm_replay_backward)


def gru_step(projected: Array, recurrent: Array, hidden: Array) -> tuple[Array, ...]:
    """One step of a GRU: its gates r, z, the candidate n, its recurrent part, and the state [..., H] last.

    Args:
        projected: [..., 3 * H] inputs times weights, with the bias.
        recurrent: [..., 3 * H] state times weights.
        hidden: [..., H] state before the step.
    """
    x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(recurrent, 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return r, z, n, h_n, (1.0 - z) * n + z * hidden


def _gru_states(params: CoreParams, inputs: Array, reset: Array) -> Array:
    def body(hidden: Array, xs: tuple[Array, Array]):
        hidden = jnp.where(xs[1], 0.0, hidden)
        projected = xs[0] @ params.inputs + params.bias
        hidden = gru_step(projected, hidden @ params.recurrent, hidden)[-1]
        return hidden, hidden

    zero = jnp.zeros(params.recurrent.shape[0], inputs.dtype)
    return jax.lax.scan(body, zero, (inputs, reset), reverse=True)[1]


@jax.custom_vjp
def _gru_replay(
    projected: Array, recurrent: Array, inputs: Array, hidden: Array, params: CoreParams, reset: Array
) -> Array:
    """``hidden`` as a function of both gate products and the inputs, as for the LSTM."""
    del projected, recurrent, inputs, params, reset
    return hidden


def _gru_replay_forward(
    projected: Array, recurrent: Array, inputs: Array, hidden: Array, params: CoreParams, reset: Array
):
    del projected, recurrent  # computed again beside the reverse scan, as for the LSTM
    return hidden, (inputs, hidden, params, reset)


def _gru_replay_backward(residuals: tuple[Any, ...], d_output: Array):
    inputs, hidden, params, reset = residuals

    def body(carried: Array, xs: tuple[Array, ...]):
        d_out, x_t, h_tm1, reset_t = xs
        projected = x_t @ params.inputs + params.bias
        r, z, n, h_n, _ = gru_step(projected, h_tm1 @ params.recurrent, h_tm1)
        d_hidden = carried + d_out
        d_n = d_hidden * (1.0 - z) * (1.0 - n**2)
        d_z = d_hidden * (h_tm1 - n) * z * (1.0 - z)
        d_r = d_n * h_n * r * (1.0 - r)
        d_recurrent = jnp.concatenate([d_r, d_z, d_n * r], axis=-1)
        carried = d_recurrent @ params.recurrent.T + d_hidden * z
        d_projected = jnp.concatenate([d_r, d_z, d_n], axis=-1)
        out = (d_projected, d_recurrent, d_projected @ params.inputs.T)
        return jnp.where(reset_t, 0.0, carried), out

    xs = (d_output, inputs, _carried(hidden, reset), reset)
    d_projected, d_recurrent, d_inputs = jax.lax.scan(body, jnp.zeros_like(d_output[0]), xs)[1]
    return d_projected, d_recurrent, d_inputs, None, None, None


_gru_replay.defvjp(_gru_replay_forward, _gru_replay_backward)
