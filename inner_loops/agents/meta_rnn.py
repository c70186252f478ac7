"""A recurrent network that learns from what it is told of its own steps (RL^2, MetaRNN).

Duan et al. 2016 (arXiv:1611.02779), Wang et al. 2016 (arXiv:1611.05763): the input of one recurrent core is
the observation, the one-hot action of the step before, its reward and whether it ended an episode; the
logits are a linear map of the state. Such an agent can learn anything in context, and knows its inputs and
outputs by place: in a world whose observations or actions stand in another order it is lost.

Worlds of other sizes are padded: the parameters are made for ``max_observations`` and ``max_actions``, and
those that a smaller world does not have are neither multiplied nor read.

**Deviation**: weights are LeCun-normal; random orthogonal matrices need a decomposition that must not be
vmapped.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from inner_loops.networks.recurrent import CoreParams, core_init, gru_step, lstm_step
from metalab.components import component, static

__all__ = ["MetaRNN", "MetaRNNParams"]

_FLAGS = 2  # reward and end of episode, the last rows of the input weights


class MetaRNNParams(NamedTuple):
    """Weights of core and head.

    Attributes:
        core: inputs are observation, action, reward, end.
        head: [H, max_actions].
        head_bias: [max_actions].
    """

    core: CoreParams
    head: Array
    head_bias: Array


@component
class MetaRNN:
    """Recurrent network that hears its own actions and rewards (RL^2; Duan et al. 2016, Wang et al. 2016)."""

    hidden_size: int = static(32, doc="H, units of the core", at_least=1)
    core: str = static("lstm", doc="recurrent core", choices=("lstm", "gru"))
    max_observations: int = static(
        0, doc="entries of the largest observation it is made for; 0: its world's", at_least=0
    )
    max_actions: int = static(
        0, doc="actions of the largest world it is made for; 0: its world's", at_least=0
    )

    def init_params(self, key: Array, sizes: Sizes) -> MetaRNNParams:
        """Weights for the largest world."""
        room = Sizes(self.max_observations or sizes.observations, self.max_actions or sizes.actions)
        _require_room(room, sizes)
        core_key, head_key = jax.random.split(key)
        head = jax.nn.initializers.lecun_normal()(
            head_key, (self.hidden_size, room.actions), jnp.result_type(float)
        )
        core = core_init(core_key, self.core, sum(room) + _FLAGS, self.hidden_size)
        return MetaRNNParams(core, head, jnp.zeros(room.actions))

    def init_memory(self, key: Array, params: MetaRNNParams, sizes: Sizes) -> tuple[Array, ...]:
        """[H] zeros: the hidden state, and the cells of an LSTM.

        Raises:
            ValueError: the world is larger than the parameters are made for.
        """
        del key
        _require_room(_room(params), sizes)
        zeros = jnp.zeros(self.hidden_size)
        return (zeros, zeros) if self.core == "lstm" else (zeros,)

    def step(
        self, params: MetaRNNParams, memory: tuple[Array, ...], percept: Percept
    ) -> tuple[tuple[Array, ...], Array]:
        """One step of the core."""
        core, room = params.core, _room(params)
        obs = jnp.where(percept.obs_mask, percept.obs, 0.0)
        num_obs, num_actions = percept.obs.shape[0], percept.action.shape[0]
        projected = (
            obs @ core.inputs[:num_obs]
            + percept.action @ core.inputs[room.observations : room.observations + num_actions]
            + percept.reward * core.inputs[-2]
            + percept.done * core.inputs[-1]
            + core.bias
        )
        recurrent = memory[0] @ core.recurrent
        if self.core == "gru":
            memory = (gru_step(projected, recurrent, memory[0])[-1],)
        else:
            memory = lstm_step(projected + recurrent, memory[1])
        logits = memory[0] @ params.head + params.head_bias
        return memory, logits[:num_actions]


def _room(params: MetaRNNParams) -> Sizes:
    """The largest world that these parameters are made for."""
    actions = params.head_bias.shape[0]
    return Sizes(params.core.inputs.shape[0] - actions - _FLAGS, actions)


def _require_room(room: Sizes, sizes: Sizes) -> None:
    if sizes.observations > room.observations or sizes.actions > room.actions:
        raise ValueError(
            f"meta_rnn: made for {room.observations} observations and {room.actions} actions at most, and "
            f"this world has {sizes.observations} and {sizes.actions}: set max_observations and max_actions "
            "to those of the largest world that it will meet"
        )
