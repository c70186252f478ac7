"""One interface for hand-written and learned update rules.

The rule declares the heads that it needs of the agent's network, turns a trajectory into targets (where its
meta-parameters act) and says what loss moves the agent towards them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.trajectory import Trajectory
from metalab.protocols import PyTree

__all__ = ["RuleInputs", "UpdateRule", "log_policy", "policy_entropy", "taken"]


class RuleInputs(NamedTuple):
    """What a rule may read of one rollout.

    Attributes:
        trajectory: ``[T, B]``.
        outputs: head name to ``[T + 1, B, size]``, the agent's outputs at ``trajectory.obs``.
        advantages: [T, B] of the lifetime's critic.
        hyper: the lifetime's hyperparameters, scalars by name.
        progress: [] share of the lifetime lived, n / N.
        lifetime: [] inner updates of the whole life, N.
    """

    trajectory: Trajectory
    outputs: Mapping[str, Array]
    advantages: Array
    hyper: Mapping[str, Array]
    progress: Array
    lifetime: Array


@runtime_checkable
class UpdateRule(Protocol):
    """How an agent learns from a rollout."""

    @property
    def is_learned(self) -> bool:
        """Whether the rule has meta-parameters that a meta-gradient can move."""
        ...

    def heads(self, num_actions: int) -> dict[str, int]:
        """Head name to size."""
        ...

    def init_meta(self, key: Array) -> PyTree:
        """Fresh meta-parameters; () for a hand-written rule."""
        ...

    def targets(self, meta: PyTree, inputs: RuleInputs) -> PyTree:
        """Constants of the inner gradient, functions of the meta-parameters; leaves ``[T, B, ...]``."""
        ...

    def loss(
        self,
        outputs: Mapping[str, Array],
        trajectory: Trajectory,
        targets: PyTree,
        hyper: Mapping[str, Array],
    ) -> Array:
        """[] the inner loss; ``outputs`` are ``[T, B, size]``, the agent's at the states acted in."""
        ...

    def regulariser(self, outputs: Mapping[str, Array], targets: PyTree) -> tuple[Array, dict[str, Any]]:
        """[] added to the outer loss, and metrics; outputs ``[T, B, size]`` of the validation rollout."""
        ...


def log_policy(logits: Array, action_mask: Array) -> Array:
    """[..., A] log-probabilities; a forbidden action has probability zero."""
    return jax.nn.log_softmax(jnp.where(action_mask, logits, -1e9))


def policy_entropy(log_probs: Array) -> Array:
    """[...] entropy in nats."""
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def taken(log_probs: Array, action: Array) -> Array:
    """[...] log-probabilities of the actions taken."""
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
