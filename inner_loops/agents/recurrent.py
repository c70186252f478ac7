"""A recurrent core that continues a learning history: a student whose memory does not grow with its context.

What it hears is what the transformer hears (``inner_loops.agents.transformer``), as one vector a step; the
core is one of ``inner_loops.networks.memory``, never reset within a life, so that what it remembers is a
matter of training and not of a window.

**Deviation** from Laskin et al. 2022 (arXiv:2210.14215): no attention; the head begins at zero, as the
transformer's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from inner_loops.agents.hearing import heard, heard_sizes, tempered
from inner_loops.factors import check_factors
from inner_loops.networks.memory.base import SequenceCore
from inner_loops.networks.memory.s5 import S5
from metalab.components import component, number, part, static
from metalab.protocols import PyTree

__all__ = ["RecurrentAgent", "RecurrentParams"]


class RecurrentParams(NamedTuple):
    """Parameters of the student.

    Attributes:
        core: see ``SequenceCore``.
        head, head_bias: [D, A] and [A].
    """

    core: PyTree
    head: Array
    head_bias: Array


@component
class RecurrentAgent:
    """State space or gated recurrence that continues learning histories (Algorithm Distillation)."""

    core: SequenceCore = part(S5(), doc="the memory", group="core")
    factors: tuple[int, ...] | None = static(
        None, doc="sizes of the grid that a state index counts through: rows and columns are heard apart"
    )
    temperature: float = number(1.0, doc="of the actions while living; 0: the best one", at_least=0.0)

    def init_params(self, key: Array, sizes: Sizes) -> RecurrentParams:
        """Fresh parameters for one world's sizes.

        Raises:
            ValueError: the factors do not make up the world's states.
        """
        check_factors(self.factors, sizes.observations)
        core = self.core.init(key, sum(heard_sizes(self.factors, sizes)))
        return RecurrentParams(core, jnp.zeros((self.core.width, sizes.actions)), jnp.zeros(sizes.actions))

    def init_memory(self, key: Array, params: RecurrentParams, sizes: Sizes) -> PyTree:
        """Nothing heard.

        Raises:
            ValueError: the parameters are made for a world with other actions.
        """
        del key
        made = params.head.shape[-1]
        if made != sizes.actions:
            raise ValueError(f"the student was made for {made} actions, and this world has {sizes.actions}")
        return self.core.empty()

    def step(self, params: RecurrentParams, memory: PyTree, percept: Percept) -> tuple[PyTree, Array]:
        """See ``InContextAgent``; the logits are tempered."""
        inputs = jnp.concatenate(heard(percept, self.factors))
        memory, features = self.core.step(params.core, memory, inputs, jnp.zeros((), bool))
        logits = features @ params.head + params.head_bias
        return memory, tempered(logits, self.temperature, percept.action_mask)

    def run(self, params: RecurrentParams, percepts: Percept) -> Array:
        """See ``SequenceAgent``."""
        inputs = jnp.concatenate(heard(percepts, self.factors), axis=-1)
        reset = jnp.zeros(percepts.reward.shape, bool)
        run = jax.vmap(self.core.run, in_axes=(None, None, 0, 0))
        return run(params.core, self.core.empty(), inputs, reset)[1] @ params.head + params.head_bias
