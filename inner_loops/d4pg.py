"""Distributional deterministic policy gradient, D4PG (Barth-Maron et al. 2018, arXiv:1804.08617).

For continuous actions. The critic is a categorical distribution over ``atoms`` returns from ``v_min`` to
``v_max``, trained by cross-entropy towards its projected target of several steps (Bellemare et al. 2017,
arXiv:1707.06887, eq. 7); the policy ascends the mean of it. With ``critic: scalar`` it is DDPG (Lillicrap et
al. 2016, arXiv:1509.02971, algorithm 1), whose critic is one number with a squared error.

The policy acts on ``[-1, 1]``, which is mapped to the environment's bounds, with Gaussian noise; before the
warm-up actions are uniform. How acting and learning alternate stands in ``inner_loops.off_policy``.

**Deviations**: the replay is uniform (the paper's other variant is prioritised); the critic reads the action
in its first layer. From DDPG: noise is uncorrelated instead of an Ornstein-Uhlenbeck process; both
networks move at once, from the same parameters, as in D4PG's algorithm 1 (DDPG moves the critic first); no
batch normalisation; weight decay is the optimiser's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops import draws
from inner_loops.classical import in_bounds
from inner_loops.experience import World, act
from inner_loops.n_step import Step, Transition
from inner_loops.networks.ddpg import (
    Layers,
    action_value,
    deterministic_action,
    init_critic,
    init_policy,
)
from inner_loops.off_policy import OffPolicyAgent, OffPolicyState
from metalab.components import component, number, part, static
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import PyTree

__all__ = ["D4PG", "Learner", "Networks", "categorical_projection"]


class Networks(NamedTuple):
    """A policy and a critic, or what an optimiser keeps for each."""

    policy: PyTree
    critic: PyTree


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
        params, target: networks.
        optimizer: their states.
    """

    params: Networks
    target: Networks
    optimizer: Networks


@component
class D4PG(OffPolicyAgent):
    """Distributional deterministic policy gradient with uniform replay; DDPG with a scalar critic."""

    policy_optimizer: OptimizerSettings = part(Adam(), doc="the policy's optimiser", group="optimizer")
    critic_optimizer: OptimizerSettings = part(Adam(), doc="the critic's optimiser", group="optimizer")
    policy_sizes: tuple[int, ...] = static((64, 64), doc="units of the policy's hidden layers")
    critic_sizes: tuple[int, ...] = static((64, 64), doc="units of the critic's hidden layers")
    critic: str = static(
        "categorical", doc="a distribution over returns, or its mean", choices=("categorical", "scalar")
    )
    atoms: int = static(51, doc="atoms of a categorical critic", at_least=2)
    v_min: float = number(-10.0, doc="return of the first atom")
    v_max: float = number(10.0, doc="return of the last atom")
    n_step: int = static(3, doc="n, steps of a transition", at_least=1)
    noise: float = number(0.1, doc="deviation of the exploration, of actions in [-1, 1]", at_least=0.0)
    target_rate: float = number(
        0.01, doc="share of the way to the networks that their targets go", above=0.0, at_most=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # While jax rebuilds a component from its leaves a number may be anything.
        ends = (self.v_min, self.v_max)
        if all(type(end) in (int, float) for end in ends) and self.v_min >= self.v_max:
            raise ValueError(
                f"v_min: {self.v_min:g} is not below v_max ({self.v_max:g}), and returns lie between them"
            )

    def _init_learner(self, key: Array) -> Any:
        policy_key, critic_key = jax.random.split(key)
        shape, size = self.environment.observation_shape, self._action_size()
        outputs = self.atoms if self.critic == "categorical" else 1
        params = Networks(
            policy=init_policy(policy_key, shape, self.policy_sizes, size),
            critic=init_critic(critic_key, shape, self.critic_sizes, size, outputs),
        )
        moments = Networks(
            self.policy_optimizer.make().init(params.policy), self.critic_optimizer.make().init(params.critic)
        )
        return Learner(params, params, moments)

    def _no_action(self) -> Array:
        return jnp.zeros(self._action_size())

    def _action_size(self) -> int:
        if self.environment.action_size is None:
            raise ValueError(
                f"d4pg needs continuous actions, and {self.environment} has {self.environment.num_actions} "
                "discrete ones: choose dqn"
            )
        return self.environment.action_size

    def _deviations(self) -> Array:
        """[B] of the exploration's noise in each environment."""
        return jnp.full(self.num_envs, self.noise)

    def _act(self, key: Array, state: OffPolicyState) -> tuple[World, Step]:
        normal_key, uniform_key, env_key = jax.random.split(key, 3)
        shape = (self.rollout_length, self.num_envs, self._action_size())
        drawn = self._deviations()[:, None] * draws.normal(normal_key, shape)
        anything = draws.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
        ready = self._ready(state)

        def choose(obs: Array, noise: tuple[Array, Array]) -> tuple[Array, Array]:
            chosen = deterministic_action(state.learner.params.policy, obs) + noise[0]
            action = jnp.where(ready, jnp.clip(chosen, -1.0, 1.0), noise[1])
            return action, in_bounds(self.environment, state.world.params, action)

        return act(self.environment, env_key, state.world, (drawn, anything), choose)

    def _gradient_step(self, learner: Any, minibatch: Transition, world: World) -> tuple[Any, Array]:
        del world
        critic, of_critic, loss = self._critic_step(learner, minibatch)
        policy, of_policy = self._policy_step(learner, learner.params.critic, minibatch)
        return self._moved(learner, Networks(policy, critic), Networks(of_policy, of_critic)), loss

    # A learner has ``params``, ``target`` and ``optimizer``; that of a subclass may hold more.

    def _critic_step(self, learner: Any, minibatch: Transition) -> tuple[PyTree, PyTree, Array]:
        """The critic after a step, its optimiser's state, and the loss [] before it."""
        critic = learner.params.critic
        loss, gradient = jax.value_and_grad(self._critic_loss)(critic, learner.target, minibatch)
        change, moments = self.critic_optimizer.make().update(gradient, learner.optimizer.critic, critic)
        return optax.apply_updates(critic, change), moments, loss

    def _policy_step(self, learner: Any, critic: PyTree, minibatch: Transition) -> tuple[PyTree, PyTree]:
        """The policy after a step up ``critic``, and its optimiser's state."""
        policy = learner.params.policy
        gradient = jax.grad(self._policy_loss)(policy, critic, minibatch)
        change, moments = self.policy_optimizer.make().update(gradient, learner.optimizer.policy, policy)
        return optax.apply_updates(policy, change), moments

    def _moved(self, learner: Any, params: Networks, moments: Networks) -> Any:
        """The learner with new networks, towards which its targets have gone."""
        target: Any = optax.incremental_update(params, learner.target, self.target_rate)
        return learner._replace(params=params, target=target, optimizer=moments)

    def _critic_loss(self, critic: Layers, target: Networks, minibatch: Transition) -> Array:
        a_t = deterministic_action(target.policy, minibatch.next_obs)
        next_outputs = action_value(target.critic, minibatch.next_obs, a_t)
        outputs = action_value(critic, minibatch.obs, minibatch.action)
        if self.critic == "scalar":
            goal = minibatch.reward + minibatch.discount * next_outputs[:, 0]
            return jnp.mean(jnp.square(goal - outputs[:, 0]))
        goal = jax.vmap(categorical_projection, (0, 0, 0, None, None))(
            minibatch.reward, minibatch.discount, jax.nn.softmax(next_outputs), self.v_min, self.v_max
        )
        return -jnp.mean(jnp.sum(goal * jax.nn.log_softmax(outputs), axis=-1))

    def _policy_loss(self, policy: Layers, critic: Layers, minibatch: Transition) -> Array:
        action = deterministic_action(policy, minibatch.obs)
        return -jnp.mean(self._mean(action_value(critic, minibatch.obs, action)))

    def _mean(self, outputs: Array) -> Array:
        """[N] expected returns from the critic's outputs ``[N, outputs]``."""
        if self.critic == "scalar":
            return outputs[:, 0]
        return jax.nn.softmax(outputs) @ jnp.linspace(self.v_min, self.v_max, self.atoms)


def categorical_projection(
    r_t: Array, discount_t: Array, probs_t: Array, v_min: Array | float, v_max: Array | float
) -> Array:
    """The target's distribution, moved onto the critic's atoms (Bellemare et al. 2017, eq. 7).

    Atom ``z_j`` moves to ``r + discount z_j``, clipped to the support, and its probability is shared between
    the two atoms beside that place, each the more the nearer it is.

    Args:
        r_t: [] reward.
        discount_t: [] weight of what follows.
        probs_t: [atoms] of the state reached.
        v_min, v_max: [] ends of the support.

    Returns:
        [atoms] probabilities.
    """
    chex.assert_rank([r_t, discount_t, probs_t], [0, 0, 1])
    last = probs_t.shape[0] - 1
    z = jnp.linspace(v_min, v_max, last + 1)
    place = (jnp.clip(r_t + discount_t * z, v_min, v_max) - v_min) / ((v_max - v_min) / last)
    # Adding to the two neighbours of every place is 2.5 times faster on a CPU than a product with the matrix
    # [atoms, atoms] of all shares, and 25 times in reverse, where that matrix had to be kept. A place that is
    # not a number adds what is not a number to some atom inside.
    below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
    share = place - below
    nothing = jnp.zeros(last + 1, share.dtype)
    moved = nothing.at[below].add((1.0 - share) * probs_t, mode="promise_in_bounds")
    return moved.at[below + 1].add(share * probs_t, mode="promise_in_bounds")
