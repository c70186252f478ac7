"""An outer critic: what a policy is worth under the weights of an evaluation.

The critic of a learner under penalties values what the learner is paid, and that moves with the multiplier:
an outer loss by the same critic moves with what it judges. This one is trained on reward and costs as they
are, and holds them apart, so that their weights may change and no value is stale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.n_step import Transition
from inner_loops.networks.ddpg import Layers, action_value, deterministic_action
from metalab.protocols import PyTree

__all__ = ["OuterValue", "outer_goals", "outer_policy_loss", "outer_value_step"]


class OuterValue(NamedTuple):
    """A critic of 1 + C values: of the reward and of each cost.

    Attributes:
        critic, target: layers.
        optimizer: its state.
    """

    critic: Layers
    target: Layers
    optimizer: PyTree


def outer_goals(target: Layers, policy: Layers, minibatch: Transition) -> Array:
    """[N, 1 + C] what the values are trained towards, with the target networks of critic and policy."""
    paid = jnp.concatenate([minibatch.reward[:, None], minibatch.cost], axis=-1)
    a_t = deterministic_action(policy, minibatch.next_obs)
    return paid + minibatch.discount[:, None] * action_value(target, minibatch.next_obs, a_t)


def outer_value_step(
    value: OuterValue,
    policy: Layers,
    minibatch: Transition,
    optimizer: optax.GradientTransformation,
    target_rate: Array | float,
) -> OuterValue:
    """A step down the squared error, and the target some of the way behind.

    Args:
        value: before.
        policy: the target policy.
        minibatch: leaves ``[N, ...]``.
        optimizer: of the critic.
        target_rate: share of the way that the target goes.
    """
    goal = outer_goals(value.target, policy, minibatch)

    def loss(critic: Layers) -> Array:
        return jnp.mean(jnp.square(goal - action_value(critic, minibatch.obs, minibatch.action)))

    change, moments = optimizer.update(jax.grad(loss)(value.critic), value.optimizer, value.critic)
    critic: Any = optax.apply_updates(value.critic, change)
    target: Any = optax.incremental_update(critic, value.target, target_rate)
    return OuterValue(critic, target, moments)


def outer_policy_loss(critic: Layers, policy: Layers, obs: Array, weight: Array) -> Array:
    """[] minus the mean value of the policy's actions, with costs weighted by ``weight`` [C]."""
    values = action_value(critic, obs, deterministic_action(policy, obs))
    return jnp.mean(values[:, 1:] @ weight - values[:, 0])
