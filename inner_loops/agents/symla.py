"""Symmetric learning agents (SymLA): a network whose weights are small LSTMs that share their parameters.

Kirsch, Flennerhag, van Hasselt, Friesen, Oh and Chen 2022 (arXiv:2109.10781). Every connection (a, b) of
layer k has a state ``h_ab`` of its own, and all of them have one parameter vector. A tick updates, layer by
layer,

    h_ab        <-  LSTM(h_ab; f_a, b_b, r, own f_b, own b_a)                          (1)
    f_b         <-  reduce_a W_f h_ab + c_f      forward message of output unit b      (2)
    b_a         <-  reduce_b W_b h_ab + c_b      backward message of input unit a      (3)

where f_a comes from below, b_b from above, and the own messages are those that the layer sent one tick ago.
The first layer hears the observation, one scalar per input unit; the last one the action of the step
before, one scalar per output unit; everyone hears that action's reward. The first entries of the last
layer's forward messages are the logits. No label, error or gradient enters: what is learned is learned from
rewards.

Nothing in the parameters knows how many units there are or which is which. With one layer, born at zero,
the agent is exactly equivariant: permuted observations leave the logits as they are, permuted actions
permute them. With more layers the states are drawn i.i.d. at birth, or the units of a hidden layer would be
copies of each other for ever; the symmetry then holds in distribution.

The products are split: only ``W h_ab`` is computed for every connection, whatever depends on one unit alone
is computed once for the unit, and the zeros beside the scalars are not multiplied. Messages are linear in the
states, so the memory holds states alone: they are reduced first, and the weights that make a message and
those that hear it are multiplied with each other once, before a life begins.

**Deviations**. Sizes, ticks and biases are not in the paper's text; the defaults are those of the same
author's variable shared meta-learning (Kirsch and Schmidhuber 2021, arXiv:2012.14905) as far as they suit
short lives. ``reduction: mean`` instead of the paper's sum keeps the scale of messages when the numbers of
units change. The end of an episode is heard beside the reward. States at birth (more than one layer) are
normal with a spread that does not depend on the width. A newborn has said what its states say, not nothing.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from inner_loops.networks.recurrent import lstm_step
from metalab.components import component, number, static

__all__ = ["LayerMemory", "SymLA", "SymLAParams"]


class SymLAParams(NamedTuple):
    """The parameters that all connections share; H units of an LSTM, messages of M entries.

    Gates are in the order input, forget, cell, output. A message from outside the layer has M entries if
    there are several layers, and is one scalar (one row) if there is only one.

    Attributes:
        below: [M or 1, 4 * H] weights of the forward message that arrives at the input unit.
        above: [M or 1, 4 * H] of the backward message that arrives at the output unit.
        own_forward: [M, 4 * H] of the forward message that the output unit sent last.
        own_backward: [M, 4 * H] of the backward message that the input unit sent last.
        reward: [4 * H].
        done: [4 * H].
        recurrent: [H, 4 * H].
        bias: [4 * H].
        forward: [H, M] from state to forward message.
        forward_bias: [M].
        backward: [H, M] from state to backward message.
        backward_bias: [M].
    """

    below: Array
    above: Array
    own_forward: Array
    own_backward: Array
    reward: Array
    done: Array
    recurrent: Array
    bias: Array
    forward: Array
    forward_bias: Array
    backward: Array
    backward_bias: Array


class LayerMemory(NamedTuple):
    """One layer of A input and B output units.

    Attributes:
        hidden: [A, B, H].
        cell: [A, B, H].
    """

    hidden: Array
    cell: Array


class _Sent(NamedTuple):
    """What the states of a layer say, before it is made a message: ``W states + c total``.

    Attributes:
        states: [units, H] reduced over the connections that meet at a unit.
        total: [] what these connections count together: 1 for means.
    """

    states: Array
    total: Array


@component
class SymLA:
    """Symmetric learning agent: a small LSTM for every connection, alike for all (Kirsch et al. 2022)."""

    hidden_size: int = static(16, doc="H, units of each connection's LSTM", at_least=1)
    message_size: int = static(8, doc="M, entries of a message", at_least=1)
    ticks: int = static(2, doc="updates of all layers for one step of the world", at_least=1)
    widths: tuple[int, ...] = static((), doc="units of the hidden layers; none: one layer of connections")
    reduction: str = static("mean", doc="of the messages that meet at a unit", choices=("mean", "sum"))
    forget_bias: float = number(1.0, doc="of the forget gates at first; 5 for lives of 1000 steps and more")
    input_bias: float = number(0.0, doc="of the input gates at first; -5 for lives of 1000 steps and more")
    random_share: float = static(
        0.5,
        doc="share of the cells that are random at birth; with one layer none is",
        at_least=0.0,
        at_most=1.0,
    )
    random_scale: float = number(1.0, doc="standard deviation of those cells", at_least=0.0)

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.widths):
            raise ValueError(f"symla: widths={self.widths} must be whole numbers of at least 1")
        if self.widths and self._random_cells == 0:
            raise ValueError(
                f"symla: random_share={self.random_share} leaves none of {self.hidden_size} cells random, "
                "and the units of a hidden layer would be copies of each other; raise it, or give no widths"
            )

    def init_params(self, key: Array, sizes: Sizes) -> SymLAParams:
        """Weights as LeCun-normal ones of all inputs of the cell together; the sizes do not matter."""
        del sizes
        units, entries = self.hidden_size, self.message_size
        outside = entries if self.widths else 1
        rows = (outside, outside, entries, entries, 1, 1, units)
        cell_key, forward_key, backward_key = jax.random.split(key, 3)
        weights = _lecun(cell_key, sum(rows), 4 * units)
        ends = [sum(rows[: place + 1]) for place in range(len(rows) - 1)]
        below, above, own_forward, own_backward, reward, done, recurrent = jnp.split(weights, ends)
        bias = jnp.zeros((4, units)).at[0].set(self.input_bias).at[1].set(self.forget_bias)
        return SymLAParams(
            below=below,
            above=above,
            own_forward=own_forward,
            own_backward=own_backward,
            reward=reward[0],
            done=done[0],
            recurrent=recurrent,
            bias=bias.reshape(-1),
            forward=_lecun(forward_key, units, entries),
            forward_bias=jnp.zeros(entries),
            backward=_lecun(backward_key, units, entries),
            backward_bias=jnp.zeros(entries),
        )

    def init_memory(self, key: Array, params: SymLAParams, sizes: Sizes) -> tuple[LayerMemory, ...]:
        """Zero; with several layers a share of every connection's cells is drawn i.i.d.

        Raises:
            ValueError: the parameters are those of one layer, and this agent has several, or the reverse.
        """
        outside = self.message_size if self.widths else 1
        if params.below.shape[0] != outside:
            raise ValueError(
                f"symla: these parameters hear {params.below.shape[0]} entries of a message from outside a "
                f"layer, and an agent with widths={self.widths} hears {outside}: one layer and several need "
                "parameters of their own"
            )
        units = (sizes.observations, *self.widths, sizes.actions)
        keys = jax.random.split(key, len(units) - 1)
        return tuple(
            self._newborn(keys[layer], inputs, outputs)
            for layer, (inputs, outputs) in enumerate(itertools.pairwise(units))
        )

    def step(
        self, params: SymLAParams, memory: tuple[LayerMemory, ...], percept: Percept
    ) -> tuple[tuple[LayerMemory, ...], Array]:
        """``ticks`` updates of all layers, and the first entries of the last forward messages."""
        everyone = percept.reward * params.reward + percept.done * params.done + params.bias
        shares = self._shares(percept)
        obs = jnp.where(percept.obs_mask, percept.obs, 0.0)
        # A scalar from outside stands at the place of a message's first entry; the others would be zeros.
        first = obs[:, None] * params.below[0]
        last = percept.action[:, None] * params.above[0]
        layers = list(memory)
        top = len(layers) - 1
        for _ in range(self.ticks):
            for place, layer in enumerate(layers):
                below, above = first, last
                if place > 0:
                    sent = _upwards(layers[place - 1], shares[place - 1])
                    below = _heard(sent, params.forward, params.forward_bias, params.below)
                if place < top:
                    sent = _downwards(layers[place + 1], shares[place + 2])
                    above = _heard(sent, params.backward, params.backward_bias, params.above)
                layers[place] = _tick(
                    params, layer, below, above + everyone, shares[place], shares[place + 1]
                )
        said = _upwards(layers[-1], shares[-2])
        return tuple(layers), said.states @ params.forward[:, 0] + said.total * params.forward_bias[0]

    @property
    def _random_cells(self) -> int:
        return round(self.random_share * self.hidden_size)

    def _newborn(self, key: Array, inputs: int, outputs: int) -> LayerMemory:
        """A layer at birth."""
        zeros = jnp.zeros((inputs, outputs, self.hidden_size))
        cell = zeros
        if self.widths:
            drawn = self.random_scale * jax.random.normal(key, (inputs, outputs, self._random_cells))
            cell = zeros.at[..., : self._random_cells].set(drawn)
        return LayerMemory(zeros, cell)

    def _shares(self, percept: Percept) -> list[Array]:
        """What each unit's state counts in a reduction, for the units of every level; 0 where masked."""
        present = [percept.obs_mask, *(jnp.ones(width, bool) for width in self.widths), percept.action_mask]
        weights = [mask.astype(jnp.result_type(float)) for mask in present]
        if self.reduction == "sum":
            return weights
        return [weight / jnp.maximum(jnp.sum(weight), 1.0) for weight in weights]


def _tick(
    params: SymLAParams, layer: LayerMemory, below: Array, above: Array, inputs: Array, outputs: Array
) -> LayerMemory:
    """One update of a layer.

    Args:
        params: shared.
        layer: before.
        below: [A, 4 * H] what arrives at the input units, projected to the gates.
        above: [B, 4 * H] what arrives at the output units and what everyone hears, likewise.
        inputs, outputs: [A], [B] what each unit counts in a reduction.
    """
    own_forward = _heard(_upwards(layer, inputs), params.forward, params.forward_bias, params.own_forward)
    own_backward = _heard(
        _downwards(layer, outputs), params.backward, params.backward_bias, params.own_backward
    )
    at_input, at_output = below + own_backward, above + own_forward
    gates = layer.hidden @ params.recurrent + at_input[:, None] + at_output[None, :]
    return LayerMemory(*lstm_step(gates, layer.cell))


def _upwards(layer: LayerMemory, inputs: Array) -> _Sent:
    """What meets at the output units (2); ``inputs`` [A] is what each input unit counts."""
    return _Sent(jnp.sum(inputs[:, None, None] * layer.hidden, axis=0), jnp.sum(inputs))


def _downwards(layer: LayerMemory, outputs: Array) -> _Sent:
    """What meets at the input units (3); ``outputs`` [B] is what each output unit counts."""
    # A product: XLA takes longer to sum over so short an axis next to the last.
    return _Sent(jnp.einsum("b,abh->ah", outputs, layer.hidden), jnp.sum(outputs))


def _heard(sent: _Sent, weights: Array, bias: Array, hearing: Array) -> Array:
    """[units, 4 * H] messages projected to the gates of those who hear them.

    Args:
        sent: the reduced states.
        weights, bias: [H, M], [M] from states to messages.
        hearing: [M, 4 * H] from messages to gates.
    """
    # Weights first: their product is the same at every step of a life, and XLA moves it out of the loop.
    return sent.states @ (weights @ hearing) + sent.total * (bias @ hearing)


def _lecun(key: Array, rows: int, columns: int) -> Array:
    """[rows, columns] truncated normal with variance 1 / rows."""
    return jax.nn.initializers.lecun_normal()(key, (rows, columns), jnp.result_type(float))
