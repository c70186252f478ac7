"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous, as an update rule.

Deviations: the critic is the lifetime's own (``inner_loops.critics``) and shares no parameters with the
policy; advantages are generalised advantage estimates, which with trace decay 1 are the paper's n-step ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from inner_loops.trajectory import Trajectory
from inner_loops.update_rules.base import RuleInputs, log_policy, policy_entropy, taken
from metalab.components import component, number, static
from metalab.protocols import PyTree

__all__ = ["A2C"]


@component
class A2C:
    """Advantage actor-critic: the policy gradient with the lifetime's critic as baseline."""

    entropy: float = number(0.0, doc="weight of the policy's entropy", at_least=0.0)
    normalize_advantages: bool = static(False, doc="divide advantages by their deviation in the batch")

    @property
    def is_learned(self) -> bool:
        """See ``UpdateRule``."""
        return False

    def heads(self, num_actions: int) -> dict[str, int]:
        """See ``UpdateRule``."""
        return {"logits": num_actions}

    def init_meta(self, key: Array) -> PyTree:
        """See ``UpdateRule``."""
        del key
        return ()

    def targets(self, meta: PyTree, inputs: RuleInputs) -> PyTree:
        """[T, B] advantages."""
        del meta
        if self.normalize_advantages:
            return inputs.advantages / (jnp.std(inputs.advantages) + 1e-6)
        return inputs.advantages

    def loss(
        self,
        outputs: Mapping[str, Array],
        trajectory: Trajectory,
        targets: PyTree,
        hyper: Mapping[str, Array],
    ) -> Array:
        """See ``UpdateRule``."""
        del hyper
        log_probs = log_policy(outputs["logits"], trajectory.action_mask)
        policy_gradient = jnp.mean(taken(log_probs, trajectory.action) * targets)
        return -policy_gradient - self.entropy * jnp.mean(policy_entropy(log_probs))

    def regulariser(self, outputs: Mapping[str, Array], targets: PyTree) -> tuple[Array, dict[str, Any]]:
        """See ``UpdateRule``."""
        del outputs, targets
        return jnp.zeros(()), {}
