"""State-value critics that belong to a lifetime: born with it, trained on its data, dead with it.

A critic's values serve the A2C rule as its baseline and the outer loss as the baseline of the meta-gradient
(the LPG paper trains one value function per lifetime that the rule never sees). Critics are trained beside
the agent: no gradient of the agent reaches them. A meta-gradient on the discount or the trace decay passes
through a tabular critic, and through a network whose optimiser is ``differentiable``.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.networks.mlp import MlpNetwork
from inner_loops.returns import generalized_advantages
from inner_loops.trajectory import Trajectory
from metalab.components import component, number, part
from metalab.gradients import inner_grad
from metalab.optimizers import Adam
from metalab.protocols import PyTree

__all__ = ["Critic", "NetworkCritic", "TabularCritic", "critic_advantages"]

_VALUE = {"value": 1}


@runtime_checkable
class Critic(Protocol):
    """A value function and how it learns."""

    @property
    def trace_decay(self) -> Any:
        """[] lambda of the advantages."""
        ...

    def init(self, key: Array, environment: Any) -> PyTree:
        """The newborn critic."""
        ...

    def values(self, state: PyTree, obs: Array) -> Array:
        """[T, B] values of observations ``[T, B, ...]``."""
        ...

    def update(self, state: PyTree, trajectory: Trajectory, advantages: Array) -> PyTree:
        """Moves values along the advantages ``[T, B]`` that it gave."""
        ...


def critic_advantages(
    critic: Critic,
    state: PyTree,
    trajectory: Trajectory,
    discount: Array | float,
    trace_decay: Array | float | None = None,
) -> Array:
    """[T, B] generalised advantages of the critic's own values.

    They depend on no parameters of the agent, and on discount and trace decay differentiably.

    Args:
        critic: the value function.
        state: its state.
        trajectory: ``[T, B]``.
        discount: [] gamma.
        trace_decay: [] lambda; None: the critic's own.
    """
    values = critic.values(state, trajectory.obs[:-1])
    next_values = critic.values(state, trajectory.next_obs)
    return jax.vmap(generalized_advantages, (1, 1, 1, 1, 1, None, None), 1)(
        trajectory.reward,
        values,
        next_values,
        trajectory.terminated,
        trajectory.truncated,
        jnp.asarray(discount),
        jnp.asarray(critic.trace_decay if trace_decay is None else trace_decay),
    )


@component
class TabularCritic:
    """Tabular TD(lambda): every visited state moves by ``rate`` times its mean advantage.

    Normalising by the number of visits keeps one rate right for states seen once and for states seen in
    every environment.
    """

    rate: float = number(0.3, doc="step towards the mean lambda-return", above=0.0, at_most=1.0)
    trace_decay: float = number(
        0.95, doc="lambda of TD(lambda) and of the advantages", at_least=0.0, at_most=1.0
    )

    def init(self, key: Array, environment: Any) -> PyTree:
        """[num_states] zeros."""
        del key
        if environment.num_states is None:
            raise ValueError(f"a tabular critic needs state indices, not those of {environment}: use network")
        return jnp.zeros(environment.num_states)

    def values(self, state: PyTree, obs: Array) -> Array:
        """See ``Critic``."""
        return state[obs]

    def update(self, state: PyTree, trajectory: Trajectory, advantages: Array) -> PyTree:
        """See ``Critic``."""
        visited = trajectory.obs[:-1].reshape(-1)
        totals = jnp.zeros_like(state).at[visited].add(advantages.reshape(-1))
        counts = jnp.zeros_like(state).at[visited].add(1.0)
        return state + self.rate * totals / jnp.maximum(counts, 1.0)


@component
class NetworkCritic:
    """A value network trained by Adam on the squared error to the lambda-returns."""

    network: MlpNetwork = part(MlpNetwork(), doc="the value network", group="network")
    optimizer: Adam = part(
        Adam(learning_rate=1e-3, max_grad_norm=1.0), doc="its optimiser", group="optimizer"
    )
    trace_decay: float = number(0.95, doc="lambda of the advantages", at_least=0.0, at_most=1.0)

    def init(self, key: Array, environment: Any) -> PyTree:
        """Parameters and optimiser state."""
        params = self.network.init(key, _VALUE, environment)
        return params, self.optimizer.make().init(params)

    def values(self, state: PyTree, obs: Array) -> Array:
        """See ``Critic``."""

        def value(one: Array) -> Array:
            return self.network.apply(state[0], one, _VALUE)["value"][0]

        return jax.vmap(jax.vmap(value))(obs)

    def update(self, state: PyTree, trajectory: Trajectory, advantages: Array) -> PyTree:
        """See ``Critic``."""
        obs = trajectory.obs[:-1]
        targets = self.values(state, obs) + advantages
        if not self.optimizer.differentiable:  # the derivative of its update may be infinite
            targets = jax.lax.stop_gradient(targets)

        def loss(params: PyTree, obs: Array, targets: Array) -> Array:
            return 0.5 * jnp.mean(jnp.square(self.values((params, None), obs) - targets))

        gradient = inner_grad(loss)(state[0], obs, targets)
        updates, optimizer_state = self.optimizer.make().update(gradient, state[1], state[0])
        return optax.apply_updates(state[0], updates), optimizer_state
