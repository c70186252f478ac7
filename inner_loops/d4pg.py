"""Distributional deterministic policy gradient, D4PG (Barth-Maron et al. 2018, arXiv:1804.08617).

For continuous actions. The critic is a categorical distribution over ``atoms`` returns from ``v_min`` to
``v_max``, trained by cross-entropy towards its projected target of several steps (Bellemare et al. 2017,
arXiv:1707.06887, eq. 7); the policy ascends the mean of it. With ``critic: scalar`` it is DDPG (Lillicrap et
al. 2016, arXiv:1509.02971, algorithm 1), whose critic is one number with a squared error.

One inner update is a rollout of ``T`` steps in ``B`` environments with Gaussian noise, filed in a uniform
replay, and ``G`` minibatches for both networks. Until the replay holds ``warmup`` transitions actions are
uniform, and the gradient steps are computed and thrown away: on parallel lanes a branch would cost as much.
Policies act on ``[-1, 1]``, which is mapped to the environment's bounds.

**Deviations**: acting and learning alternate in blocks instead of running side by side; the replay is
uniform (the paper's other variant is prioritised); the critic reads the action in its first layer. Discounts
are applied when a transition is filed, so a discount that changes during life reaches old transitions only
as they are replaced. From DDPG: noise is uncorrelated instead of an Ornstein-Uhlenbeck process; both
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

from inner_loops.experience import (
    STORED,
    Experience,
    World,
    act,
    check_warmup,
    file_steps,
    new_world,
    no_experience,
)
from inner_loops.n_step import Transition
from inner_loops.networks.ddpg import (
    Layers,
    action_value,
    deterministic_action,
    init_critic,
    init_policy,
)
from metalab.components import component, number, part, static
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite, select

__all__ = ["D4PG", "D4PGState", "Networks", "categorical_projection"]


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


class D4PGState(NamedTuple):
    """One lifetime.

    Attributes:
        learner: networks and optimisers.
        experience: the replay.
        world: the environments.
    """

    learner: Learner
    experience: Experience
    world: World


@component
class D4PG:
    """Distributional deterministic policy gradient with uniform replay; DDPG with a scalar critic."""

    policy_optimizer: OptimizerSettings = part(Adam(), doc="the policy's optimiser", group="optimizer")
    critic_optimizer: OptimizerSettings = part(Adam(), doc="the critic's optimiser", group="optimizer")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    policy_sizes: tuple[int, ...] = static((64, 64), doc="units of the policy's hidden layers")
    critic_sizes: tuple[int, ...] = static((64, 64), doc="units of the critic's hidden layers")
    critic: str = static(
        "categorical", doc="a distribution over returns, or its mean", choices=("categorical", "scalar")
    )
    atoms: int = static(51, doc="atoms of a categorical critic", at_least=2)
    v_min: float = number(-10.0, doc="return of the first atom")
    v_max: float = number(10.0, doc="return of the last atom")
    num_envs: int = static(8, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(8, doc="T, environment steps of one rollout", at_least=1)
    gradient_steps: int = static(8, doc="G, minibatches of one inner update", at_least=1)
    batch_size: int = static(64, doc="transitions of a minibatch", at_least=1)
    capacity: int = static(16_384, doc="transitions in the replay, a multiple of T * B", at_least=1)
    warmup: int = number(1_000, doc="transitions in the replay before the first gradient step", at_least=1)
    n_step: int = static(3, doc="n, steps of a transition", at_least=1)
    stored: str = static(
        "float32", doc="how observations are kept; uint8 for whole numbers from 0 to 255 only", choices=STORED
    )
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)
    noise: float = number(0.1, doc="deviation of the exploration, of actions in [-1, 1]", at_least=0.0)
    target_rate: float = number(
        0.01, doc="share of the way to the networks that their targets go", above=0.0, at_most=1.0
    )

    def __post_init__(self) -> None:
        check_warmup(self.warmup, self.capacity)
        # While jax rebuilds a component from its leaves a number may be anything.
        ends = (self.v_min, self.v_max)
        if all(type(end) in (int, float) for end in ends) and self.v_min >= self.v_max:
            raise ValueError(
                f"v_min: {self.v_min:g} is not below v_max ({self.v_max:g}), and returns lie between them"
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T * B."""
        return self.num_envs * self.rollout_length

    def init_meta(self, key: Array) -> PyTree:
        """()."""
        del key
        return ()

    def init(self, key: Array, meta: PyTree, task: Task) -> D4PGState:
        """A newborn agent; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters of their own, or actions are discrete.
        """
        del meta
        if task.params.hyper:
            names = ", ".join(sorted(task.params.hyper))
            raise ValueError(f"the tasks set {names} per lifetime; a D4PG agent has its own numbers")
        policy_key, critic_key, env_key = jax.random.split(key, 3)
        shape, size = self.environment.observation_shape, self._action_size()
        outputs = self.atoms if self.critic == "categorical" else 1
        params = Networks(
            policy=init_policy(policy_key, shape, self.policy_sizes, size),
            critic=init_critic(critic_key, shape, self.critic_sizes, size, outputs),
        )
        moments = Networks(
            self.policy_optimizer.make().init(params.policy), self.critic_optimizer.make().init(params.critic)
        )
        world = new_world(self.environment, env_key, task.params.env_params, self.num_envs)
        experience = no_experience(
            world.obs[0], jnp.zeros(size), self.num_envs, self.capacity, self.n_step, self.stored
        )
        return D4PGState(Learner(params, params, moments), experience, world)

    def step(self, key: Array, meta: PyTree, state: D4PGState, batch: PyTree) -> tuple[D4PGState, StepOut]:
        """One rollout and ``G`` gradient steps."""
        del meta, batch
        act_key, learn_key = jax.random.split(key)
        state, reward = self._act(act_key, state)
        learner, loss, ready = self._learn(learn_key, state)
        metrics = {"reward": reward, "loss": loss, "learning": ready.astype(loss.dtype)}
        return state._replace(learner=learner), StepOut(metrics=metrics)

    def evaluate(
        self, key: Array, meta: PyTree, state: D4PGState, outs: StepOut, batch: PyTree
    ) -> tuple[D4PGState, Evaluation]:
        """The score of the last episodes; there is no outer loss."""
        del key, meta, batch
        learned = jnp.maximum(jnp.sum(outs.metrics["learning"]), 1.0)
        metrics = {"critic_loss": jnp.sum(outs.metrics["loss"]) / learned}
        score = jnp.mean(state.world.episodes.last)
        return state, Evaluation(None, score, metrics, broken=~all_finite(state.learner.params))

    def assess(self, key: Array, meta: PyTree, state: D4PGState) -> dict[str, Array]:
        """``return``: the mean score of the environments' last episodes."""
        del key, meta
        return {"return": jnp.mean(state.world.episodes.last)}

    def _action_size(self) -> int:
        if self.environment.action_size is None:
            raise ValueError(
                f"d4pg needs continuous actions, and {self.environment} has {self.environment.num_actions} "
                "discrete ones: choose dqn"
            )
        return self.environment.action_size

    def _ready(self, state: D4PGState) -> Array:
        return state.experience.replay.size >= self.warmup

    def _act(self, key: Array, state: D4PGState) -> tuple[D4PGState, Array]:
        """A rollout, filed; and its mean reward."""
        normal_key, uniform_key, env_key = jax.random.split(key, 3)
        shape = (self.rollout_length, self.num_envs, self._action_size())
        drawn = self.noise * jax.random.normal(normal_key, shape)
        anything = jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
        low, high = self.environment.action_bounds(state.world.params)
        ready = self._ready(state)

        def choose(obs: Array, noise: tuple[Array, Array]) -> tuple[Array, Array]:
            chosen = deterministic_action(state.learner.params.policy, obs) + noise[0]
            action = jnp.where(ready, jnp.clip(chosen, -1.0, 1.0), noise[1])
            return action, low + 0.5 * (high - low) * (action + 1.0)

        world, steps = act(self.environment, env_key, state.world, (drawn, anything), choose)
        experience = file_steps(state.experience, steps, self.discount)
        return state._replace(world=world, experience=experience), jnp.mean(steps.reward)

    def _learn(self, key: Array, state: D4PGState) -> tuple[Learner, Array, Array]:
        """``G`` gradient steps: the learner, the critic's mean loss, and whether they counted."""
        of_policy, of_critic = self.policy_optimizer.make(), self.critic_optimizer.make()
        ready = self._ready(state)

        def update(learner: Learner, minibatch: Transition) -> tuple[Learner, Array]:
            params, moments = learner.params, learner.optimizer
            loss, of_loss = jax.value_and_grad(self._critic_loss)(params.critic, learner.target, minibatch)
            of_value = jax.grad(self._policy_loss)(params.policy, params.critic, minibatch)
            critic, critic_moments = of_critic.update(of_loss, moments.critic, params.critic)
            policy, policy_moments = of_policy.update(of_value, moments.policy, params.policy)
            params: Any = optax.apply_updates(params, Networks(policy, critic))
            target: Any = optax.incremental_update(params, learner.target, self.target_rate)
            return Learner(params, target, Networks(policy_moments, critic_moments)), loss

        minibatches = state.experience.replay.sample(key, (self.gradient_steps, self.batch_size))
        learner, losses = jax.lax.scan(update, state.learner, minibatches)
        return select(ready, learner, state.learner), jnp.where(ready, jnp.mean(losses), 0.0), ready

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
    z = jnp.linspace(v_min, v_max, probs_t.shape[0])
    gap = (v_max - v_min) / (probs_t.shape[0] - 1)
    place = jnp.clip(r_t + discount_t * z, v_min, v_max)
    # [atoms, atoms]: a product of small matrices is faster than adding to the neighbours of every place, and
    # a place that is not a number is no index that leads astray.
    share = jnp.clip(1.0 - jnp.abs(place - z[:, None]) / gap, 0.0, 1.0)
    return share @ probs_t
