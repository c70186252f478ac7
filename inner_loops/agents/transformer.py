"""A causal transformer that continues a learning history: the student of Algorithm Distillation.

Laskin et al. 2022 (arXiv:2210.14215). A token is a step: the observation, the action and the reward before it
and whether an episode ended there, each embedded linearly and added,

    x_t = W_o o_t + W_a a_{t-1} + w_r r_{t-1} + w_e e_{t-1} + b,

so that the reward stands beside the state that it was obtained in. ``tokens: 3`` gives action, outcome and
observation a token each, in this order, and reads the action from the last. The transformer is pre-norm with
relative positions and banded attention (``inner_loops.networks.causal``); the memory of a living agent is a
ring of keys and values of the last ``context`` steps.

**Deviations**: pre-norm instead of post-norm, relative instead of absolute positions (a window may then
slide), no dropout and no random masking of tokens, one token a step by default; the head begins at zero, so
that a newborn's policy is uniform.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import Percept, Sizes
from inner_loops.agents.hearing import heard, heard_sizes, tempered
from inner_loops.factors import check_factors
from inner_loops.networks.causal import POSITIONS, CausalStack, Kept
from inner_loops.networks.transformer import check_heads
from metalab.components import component, number, static
from metalab.protocols import PyTree

__all__ = ["TransformerAgent", "TransformerParams", "Window"]


class TransformerParams(NamedTuple):
    """Parameters of the student.

    Attributes:
        observation, action, outcome: [O', D], [A, D] and [3, D] embeddings.
        stack: of the transformer.
        head, head_bias: [D, A] and [A].
    """

    observation: Array
    action: Array
    outcome: Array
    stack: PyTree
    head: Array
    head_bias: Array


class Window(NamedTuple):
    """The memory of an agent that reads its window anew at every step.

    Attributes:
        tokens: [L, n, D] embedded, in order; behind the latest step stands nothing.
        steps: [] int32, steps heard so far.
    """

    tokens: Array
    steps: Array


@component
class TransformerAgent:
    """Causal transformer that continues learning histories (Algorithm Distillation; Laskin et al. 2022)."""

    width: int = static(64, doc="D, features of a token", at_least=2)
    layers: int = static(2, doc="blocks", at_least=1)
    heads: int = static(4, doc="of the attention; they divide the width into even parts", at_least=1)
    context: int = static(100, doc="L, steps that one step sees, itself included", at_least=1)
    positions: str = static("alibi", doc="how distances are told", choices=POSITIONS)
    tokens: int = static(
        1, doc="of a step: 1 for all, or 3 for action, outcome and observation", choices=(1, 3)
    )
    factors: tuple[int, ...] | None = static(
        None, doc="sizes of the grid that a state index counts through: rows and columns are heard apart"
    )
    cache: bool = static(
        True, doc="keep keys and values while living; false: read the last L steps anew at every step"
    )
    temperature: float = number(1.0, doc="of the actions while living; 0: the best one", at_least=0.0)

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)

    def init_params(self, key: Array, sizes: Sizes) -> TransformerParams:
        """Fresh parameters for one world's sizes.

        Raises:
            ValueError: the factors do not make up the world's states.
        """
        check_factors(self.factors, sizes.observations)
        embed_key, stack_key = jax.random.split(key)
        rows = heard_sizes(self.factors, sizes)
        # A token is a sum of about four rows, and then of unit variance.
        drawn = 0.5 * jax.random.normal(embed_key, (sum(rows), self.width))
        observation, action, outcome = jnp.split(drawn, (rows[0], rows[0] + rows[1]))
        return TransformerParams(
            observation=observation,
            action=action,
            outcome=outcome,
            stack=self._stack.init(stack_key, jnp.zeros((1, self.width))),
            head=jnp.zeros((self.width, sizes.actions)),
            head_bias=jnp.zeros(sizes.actions),
        )

    def init_memory(self, key: Array, params: TransformerParams, sizes: Sizes) -> Kept | Window:
        """Nothing heard.

        Raises:
            ValueError: the parameters are made for a world of other sizes.
        """
        del key
        made = (params.observation.shape[0], params.head.shape[-1])
        lives = (heard_sizes(self.factors, sizes)[0], sizes.actions)
        if made != lives:
            raise ValueError(
                f"the student was made for {made[0]} observations and {made[1]} actions, and this world has "
                f"{lives[0]} and {lives[1]}"
            )
        if self.cache:
            return self._stack.empty()
        return Window(jnp.zeros((self.context, self.tokens, self.width)), jnp.zeros((), jnp.int32))

    def step(self, params: TransformerParams, memory: Any, percept: Percept) -> tuple[Kept | Window, Array]:
        """See ``InContextAgent``; the logits are tempered."""
        tokens = self._embedded(params, percept)
        memory, features = (self._kept if self.cache else self._reread)(params, memory, tokens)
        logits = features @ params.head + params.head_bias
        return memory, tempered(logits, self.temperature, percept.action_mask)

    def run(self, params: TransformerParams, percepts: Percept) -> Array:
        """See ``SequenceAgent``: every step sees the last ``context`` of the stream."""
        tokens = self._embedded(params, percepts)
        streams = percepts.reward.shape[0]
        features = self._apply(params, tokens.reshape(streams, -1, self.width))
        acted = features[:, self.tokens - 1 :: self.tokens]
        return acted @ params.head + params.head_bias

    @property
    def _stack(self) -> CausalStack:
        return CausalStack(self.width, self.layers, self.heads, self.context * self.tokens, self.positions)

    def _apply(self, params: TransformerParams, *args: Any, **how: Any) -> Any:
        return self._stack.apply(params.stack, *args, **how)

    def _embedded(self, params: TransformerParams, percept: Percept) -> Array:
        """[..., n, D] tokens of steps ``[...]``."""
        obs, action, outcome = heard(percept, self.factors)
        each = (action @ params.action, outcome @ params.outcome, obs @ params.observation)
        return jnp.stack(each, axis=-2) if self.tokens == 3 else sum(each)[..., None, :]  # pyright: ignore

    def _kept(self, params: TransformerParams, memory: Kept, tokens: Array) -> tuple[Kept, Array]:
        """The memory and features [D] after the tokens [n, D] of a step."""
        features = tokens[-1]
        for token in tokens:
            memory, features = self._apply(params, memory, token, method=CausalStack.step)
        return memory, features

    def _reread(self, params: TransformerParams, memory: Window, tokens: Array) -> tuple[Window, Array]:
        """The same from a window that is read from its first step on."""
        full = memory.steps >= self.context
        window = jnp.where(full, jnp.roll(memory.tokens, -1, axis=0), memory.tokens)
        at = jnp.minimum(memory.steps, self.context - 1)
        window = window.at[at].set(tokens)  # what stands behind is not seen
        features = self._apply(params, window.reshape(-1, self.width))
        last = features[(at + 1) * self.tokens - 1]
        return Window(window, memory.steps + 1), last
