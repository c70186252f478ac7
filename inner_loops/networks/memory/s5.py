"""S5 (Smith et al. 2022, arXiv:2208.04933) as a memory that resets within a sequence.

Each layer is layer norm, a diagonal state space, GELU, a gate ``x * sigmoid(W x)`` and the residual (section
3 and appendix G of the paper); between two episodes the state is emptied (Lu et al. 2023, arXiv:2303.03982).
The conjugate half of the states is implied: outputs are twice the real part.

**Deviations**: one HiPPO block; ``C`` begins real in the coordinates of HiPPO, so that a newborn layer is a
real state space; real parts of eigenvalues are ``-exp`` of a parameter, so that no update makes a state grow;
no dropout; one learning rate for all parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inner_loops.networks.memory.recurrence import Pair, advanced, linear_recurrence, unless
from inner_loops.networks.memory.state_space import DECAY, hippo_modes, zero_order_hold
from metalab.components import component, number, static

__all__ = ["S5", "Recurrence", "S5Layer", "S5Params", "through"]

Recurrence = Callable[[Pair, Pair, Pair], Pair]  # factor [N], drive [..., N], start [N] to states [..., N]
_EPS = 1e-6


class S5Layer(NamedTuple):
    """One layer with ``D`` features and ``N`` complex states; complex numbers are pairs of real arrays.

    Attributes:
        norm_scale, norm_offset: [D] of the layer norm.
        log_decay: [N] log of minus the real part of ``Lambda``.
        frequency: [N] imaginary part of ``Lambda``.
        log_step: [N] log of the time of a step.
        b: [D, N] each, transposed input matrix.
        c: [N, D] each, transposed output matrix.
        skip: [D] what the input adds to the output directly.
        gate, gate_bias: [D, D] and [D].
    """

    norm_scale: Array
    norm_offset: Array
    log_decay: Array
    frequency: Array
    log_step: Array
    b: Pair
    c: Pair
    skip: Array
    gate: Array
    gate_bias: Array


class S5Params(NamedTuple):
    """Parameters of the stack.

    Attributes:
        weight, bias: [F, D] and [D], from inputs to features.
        layers: in order.
    """

    weight: Array
    bias: Array
    layers: tuple[S5Layer, ...]


@component
class S5:
    """Stack of diagonal state spaces, parallel over time, with resets (Smith et al. 2022; Lu et al. 2023)."""

    width: int = static(64, doc="D, features of every layer", at_least=1)
    state_size: int = static(64, doc="P, real numbers in the state of a layer; even", at_least=2)
    layers: int = static(2, doc="layers", at_least=1)
    min_step: float = number(
        1e-3, doc="shortest time of a step at birth; 1: a state decays by 1/2", above=0.0
    )
    max_step: float = number(1e-1, doc="longest; steps are log-uniform between both", above=0.0)

    def __post_init__(self) -> None:
        if self.state_size % 2:
            raise ValueError(
                f"s5: state_size={self.state_size} is odd, and states come in conjugate pairs; "
                f"use {self.state_size + 1}"
            )

    def init(self, key: Array, num_inputs: int) -> S5Params:
        """HiPPO eigenvalues, log-uniform steps, LeCun-normal matrices."""
        input_key, *keys = jax.random.split(key, self.layers + 1)
        weight = jax.random.normal(input_key, (num_inputs, self.width)) / jnp.sqrt(num_inputs)
        return S5Params(weight, jnp.zeros(self.width), tuple(self._init_layer(key) for key in keys))

    def empty(self) -> tuple[Pair, ...]:
        """[P / 2] zeros, twice for every layer."""
        zeros = jnp.zeros(self.state_size // 2)
        return ((zeros, zeros),) * self.layers

    def step(
        self, params: S5Params, carry: tuple[Pair, ...], inputs: Array, reset: Array
    ) -> tuple[tuple[Pair, ...], Array]:
        """One step, see ``SequenceCore``."""

        def once(factor: Pair, drive: Pair, start: Pair) -> Pair:
            return advanced(unless(reset, factor), start, drive)

        return through(params, carry, inputs, once)

    def run(
        self, params: S5Params, carry: tuple[Pair, ...], inputs: Array, reset: Array
    ) -> tuple[tuple[Pair, ...], Array]:
        """``T`` steps in parallel, see ``SequenceCore``."""

        def along(factor: Pair, drive: Pair, start: Pair) -> Pair:
            return linear_recurrence(factor, reset, drive, start)

        return through(params, carry, inputs, along)

    def _init_layer(self, key: Array) -> S5Layer:
        b_key, c_key, skip_key, step_key, gate_key = jax.random.split(key, 5)
        width, size, modes = self.width, self.state_size, self.state_size // 2
        frequency, vectors = hippo_modes(size)
        real, imag = (jnp.asarray(part(vectors), jnp.result_type(float)) for part in (np.real, np.imag))
        b = jax.random.normal(b_key, (width, size)) / jnp.sqrt(width)
        c = jax.random.normal(c_key, (width, size)) / jnp.sqrt(size)
        share = jax.random.uniform(step_key, (modes,))
        return S5Layer(
            norm_scale=jnp.ones(width),
            norm_offset=jnp.zeros(width),
            log_decay=jnp.full(modes, math.log(DECAY), real.dtype),
            frequency=jnp.asarray(frequency, real.dtype),
            log_step=jnp.log(self.min_step) + share * jnp.log(self.max_step / self.min_step),
            b=(b @ real, -(b @ imag)),  # V^H B
            c=((c @ real).T, (c @ imag).T),  # C V
            skip=jax.random.normal(skip_key, (width,)),
            gate=jax.random.normal(gate_key, (width, width)) / jnp.sqrt(width),
            gate_bias=jnp.zeros(width),
        )


def through(
    params: S5Params, carry: tuple[Pair, ...], inputs: Array, recurrence: Recurrence
) -> tuple[tuple[Pair, ...], Array]:
    """The states of all layers and the features, of one step or of many.

    Args:
        params: of the stack.
        carry: states before the first step, [N] each.
        inputs: [F] or [T, F].
        recurrence: from the factor [N], the drive and the start of a layer to its states.
    """
    features = inputs @ params.weight + params.bias
    states = []
    for layer, start in zip(params.layers, carry, strict=True):
        state, features = _layer(layer, start, features, recurrence)
        states.append(state)
    return tuple(states), features


def _layer(layer: S5Layer, start: Pair, features: Array, recurrence: Recurrence) -> tuple[Pair, Array]:
    """States ``[..., N]`` and features ``[..., D]``."""
    u = _normalized(features) * layer.norm_scale + layer.norm_offset
    factor, weight = zero_order_hold((-jnp.exp(layer.log_decay), layer.frequency), jnp.exp(layer.log_step))
    b_real = layer.b[0] * weight[0] - layer.b[1] * weight[1]
    b_imag = layer.b[0] * weight[1] + layer.b[1] * weight[0]
    state = recurrence(factor, (u @ b_real, u @ b_imag), start)
    output = 2.0 * (state[0] @ layer.c[0] - state[1] @ layer.c[1]) + layer.skip * u
    active = jax.nn.gelu(output)
    return state, features + active * jax.nn.sigmoid(active @ layer.gate + layer.gate_bias)


def _normalized(features: Array) -> Array:
    centred = features - jnp.mean(features, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + _EPS)
