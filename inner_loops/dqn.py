"""Deep Q-network (Mnih et al. 2013, arXiv:1312.5602; 2015, Nature 518).

With double Q-learning (van Hasselt et al. 2016, arXiv:1509.06461, eq. 4), dueling heads (Wang et al. 2016,
arXiv:1511.06581) and targets of several steps (``inner_loops.n_step``), each of which can be switched off.

The policy is epsilon-greedy, the loss Huber's; how acting and learning alternate stands in
``inner_loops.off_policy``.

**Deviations** from the first papers: Adam instead of RMSProp; no frame stacking; rewards are not clipped.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops import draws
from inner_loops.experience import World, act, recorded
from inner_loops.exploration import EpsilonGreedy, epsilon_greedy
from inner_loops.n_step import Step, Transition
from inner_loops.networks.base import AgentNetwork
from inner_loops.networks.q_network import StreamNetwork, action_values, q_heads
from inner_loops.off_policy import OffPolicyAgent, OffPolicyState
from inner_loops.trajectory import Trajectory
from metalab.components import component, number, part, static
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import PyTree

__all__ = ["DQN", "Learner", "q_targets"]


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
        params: of the network.
        target: of the target network.
        optimizer: its state.
        updates: [] int32 gradient steps taken.
    """

    params: PyTree
    target: PyTree
    optimizer: PyTree
    updates: Array


@component
class DQN(OffPolicyAgent):
    """Deep Q-network: double, dueling, n-step, with uniform replay (Mnih et al. 2015)."""

    network: AgentNetwork = part(StreamNetwork(), doc="the action values", group="network")
    optimizer: OptimizerSettings = part(Adam(), doc="the agent's optimiser", group="optimizer")
    exploration: EpsilonGreedy = part(EpsilonGreedy(), doc="how it explores", group="exploration")
    double: bool = static(True, doc="the online network chooses the action that the target network values")
    dueling: bool = static(True, doc="heads for value and advantages")
    huber: float = number(1.0, doc="errors above count linearly", above=0.0)
    target_period: int = number(1, doc="gradient steps between two moves of the target network", at_least=1)
    target_rate: float = number(
        0.01, doc="share of the way to the network that a move goes; 1: a copy", above=0.0, at_most=1.0
    )

    def _init_learner(self, key: Array) -> Learner:
        params = self.network.init(key, self._heads(), self.environment)
        return Learner(params, params, self.optimizer.make().init(params), jnp.zeros((), jnp.int32))

    def _no_action(self) -> Array:
        return jnp.zeros((), jnp.int32)

    def _metrics(self, state: OffPolicyState) -> dict[str, Array]:
        return {"epsilon": self.exploration.epsilon(state.world.steps)}

    def _heads(self) -> dict[str, int]:
        return q_heads(self.environment.num_actions, self.dueling)

    def _values(self, params: PyTree, obs: Array) -> Array:
        """[N, A] for observations ``[N, ...]``."""
        return action_values(jax.vmap(lambda one: self.network.apply(params, one, self._heads()))(obs))

    def _act(self, key: Array, state: OffPolicyState) -> tuple[World, Step]:
        noise_key, env_key = jax.random.split(key)
        noise = draws.uniform(noise_key, (self.rollout_length, self.num_envs))
        epsilon, mask = self.exploration.epsilon(state.world.steps), self._mask(state.world)

        def choose(obs: Array, uniform: Array) -> tuple[Array, Array]:
            values = self._values(state.learner.params, obs)
            action = jax.vmap(epsilon_greedy, (0, 0, None, None))(uniform, values, epsilon, mask)
            return action, action

        return act(self.environment, env_key, state.world, noise, choose)

    def _recorded(self, world: World, steps: Step) -> Trajectory:
        return recorded(self.environment, world, steps)

    def _gradient_step(self, learner: Learner, minibatch: Transition, world: World) -> tuple[Learner, Array]:
        optimizer, mask = self.optimizer.make(), self._mask(world)
        loss, gradient = jax.value_and_grad(self._loss)(learner.params, learner.target, minibatch, mask)
        change, moments = optimizer.update(gradient, learner.optimizer, learner.params)
        params = optax.apply_updates(learner.params, change)
        updates = learner.updates + 1
        rate = jnp.where(updates % self.target_period == 0, self.target_rate, 0.0)
        target = optax.incremental_update(params, learner.target, rate)
        return Learner(params, target, moments, updates), loss

    def _mask(self, world: World) -> Array:
        return self.environment.action_mask(world.params)

    def _loss(self, params: PyTree, target: PyTree, minibatch: Transition, mask: Array) -> Array:
        q_tm1 = self._values(params, minibatch.obs)
        q_target_t = self._values(target, minibatch.next_obs)
        # The targets are constants (Mnih et al. 2015): nothing flows back into the choice of the action.
        q_select_t = (
            self._values(jax.lax.stop_gradient(params), minibatch.next_obs) if self.double else q_target_t
        )
        goal = q_targets(minibatch.reward, minibatch.discount, q_target_t, q_select_t, mask)
        taken = minibatch.action[:, None] == jnp.arange(q_tm1.shape[-1])
        error = goal - jnp.sum(jnp.where(taken, q_tm1, 0.0), axis=-1)
        return jnp.mean(optax.huber_loss(error, delta=self.huber))


def q_targets(r_t: Array, discount_t: Array, q_target_t: Array, q_select_t: Array, mask: Array) -> Array:
    """Targets of (double) Q-learning (van Hasselt et al. 2016, eq. 4).

    Args:
        r_t: [N] rewards.
        discount_t: [N] weights of what follows.
        q_target_t: [N, A] values that the chosen action is given.
        q_select_t: [N, A] values that choose it: the online network's for double Q-learning, else the same.
        mask: [A] bool, the actions that are allowed.

    Returns:
        [N].
    """
    chosen = jnp.argmax(jnp.where(mask, q_select_t, -jnp.inf), axis=-1)
    return r_t + discount_t * jnp.take_along_axis(q_target_t, chosen[:, None], axis=-1)[:, 0]
