"""What every agent is that learns in context, within its activations and without a gradient.

The parameters are the learning algorithm: fixed while an agent lives, moved by an outer loop. The memory is
the learner: born with the lifetime, changed by every step, never reset in between.
``inner_loops.in_context`` lets such an agent live in a world.

Functions are unbatched: one agent, one step.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jax import Array

from metalab.protocols import PyTree

__all__ = ["InContextAgent", "Percept", "SequenceAgent", "Sizes", "logits_along"]


class Sizes(NamedTuple):
    """What an agent has to do with; static.

    Attributes:
        observations: O, entries of an observation.
        actions: A, discrete actions.
    """

    observations: int
    actions: int


class Percept(NamedTuple):
    """All that an agent is told before it acts at time t.

    Action, reward and end belong together: they are those of the step before. At birth they are zero.

    Attributes:
        obs: [O] float32, the observation at t.
        action: [A] float32, one-hot, the action at t - 1.
        reward: [] float32, what that action was paid.
        done: [] float32, 1 if that step ended an episode.
        obs_mask: [O] bool, the entries of the observation that this world has.
        action_mask: [A] bool, the actions that this world has.
    """

    obs: Array
    action: Array
    reward: Array
    done: Array
    obs_mask: Array
    action_mask: Array


@runtime_checkable
class InContextAgent(Protocol):
    """An agent whose parameters are a learning algorithm and whose memory is the learner."""

    def init_params(self, key: Array, sizes: Sizes) -> PyTree:
        """Fresh parameters, float leaves; () for an agent that has none."""
        ...

    def init_memory(self, key: Array, params: PyTree, sizes: Sizes) -> PyTree:
        """The memory of a newborn.

        Args:
            key: PRNG key of this life.
            params: the parameters that it will live with.
            sizes: of the world that it is born into, which may be others than those of ``init_params``.

        Raises:
            ValueError: the parameters are not made for a world of these sizes.
        """
        ...

    def step(self, params: PyTree, memory: PyTree, percept: Percept) -> tuple[PyTree, Array]:
        """The memory after the percept, and logits ``[A]``; those of masked actions are not read."""
        ...


@runtime_checkable
class SequenceAgent(InContextAgent, Protocol):
    """An agent that can read whole streams at once, which is how it is taught by recorded ones."""

    def run(self, params: PyTree, percepts: Percept) -> Array:
        """Logits ``[N, T, A]`` of N newborns that hear percepts ``[N, T, ...]``, without any temperature.

        They are those of ``step`` in turn, to rounding. Streams come together because the products with
        weights are faster so than under ``vmap`` (``inner_loops.networks.transformer``).
        """
        ...


def logits_along(agent: InContextAgent, key: Array, params: PyTree, percepts: Percept) -> Array:
    """Logits ``[N, T, A]`` of newborn agents that hear percepts ``[N, T, ...]``, at once where they can."""
    if isinstance(agent, SequenceAgent):
        return agent.run(params, percepts)
    sizes = Sizes(percepts.obs.shape[-1], percepts.action.shape[-1])

    def hear(memory: PyTree, percept: Percept) -> tuple[PyTree, Array]:
        return agent.step(params, memory, percept)

    def one(key: Array, percepts: Percept) -> Array:
        return jax.lax.scan(hear, agent.init_memory(key, params, sizes), percepts)[1]

    return jax.vmap(one)(jax.random.split(key, percepts.reward.shape[0]), percepts)
