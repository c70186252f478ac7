"""What every reinforcement learning task carries, and what their distributions share."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment
from metalab.protocols import Task

__all__ = ["AgentTask", "AgentTaskDistribution", "agent_task", "sample_lifetime"]


class AgentTask(NamedTuple):
    """One world and how an agent is to live in it.

    Attributes:
        env_params: parameters of the environment, a pytree of arrays.
        kind: [] int32, the environment's type within its distribution, below ``num_kinds``.
        hyper: the agent's hyperparameters of this lifetime by name ([] arrays; ``learning_rate``,
            ``target_weight``, ``discount``, ``policy_entropy``); one that is missing is the agent's own.
    """

    env_params: Any
    kind: Array
    hyper: dict[str, Array]


@runtime_checkable
class AgentTaskDistribution(Protocol):
    """A distribution of worlds that share one environment, that is one set of shapes."""

    @property
    def environment(self) -> Environment:
        """The environment that reads the tasks' ``env_params``."""
        ...

    @property
    def num_kinds(self) -> int:
        """How many types of environment there are; a bandit keeps a table for each."""
        ...

    def sample(self, key: Array) -> Task:
        """Draws one task."""
        ...

    def sample_set(self, key: Array, count: int) -> Task:
        """Draws a fixed set, leaves ``[count, ...]``, spread evenly over what the distribution holds."""
        ...


def agent_task(env_params: Any, lifetime: Array, kind: Array | int = 0) -> Task:
    """A task with the agent's own hyperparameters."""
    return Task(AgentTask(env_params, jnp.asarray(kind, jnp.int32), {}), lifetime)


def sample_lifetime(key: Array, lifetime: Array | int, shortest: Array | int) -> Array:
    """[] int32 inner updates: ``lifetime``, or log-uniform from ``shortest`` to it where that is above 0.

    The log-uniform draw is over the integers ``shortest..lifetime``, both included: a lifetime that is
    conditioned on its own length (Jackson et al. 2024, arXiv 2402.05828) must vary.
    """
    high = jnp.asarray(lifetime, jnp.float32)
    low = jnp.where(jnp.asarray(shortest) > 0, jnp.asarray(shortest, jnp.float32), high)
    drawn = jnp.floor(low * jnp.exp(jax.random.uniform(key) * jnp.log((high + 1.0) / low)))
    varied = jnp.clip(drawn, low, high)
    return jnp.where(jnp.asarray(shortest) > 0, varied, high).astype(jnp.int32)
