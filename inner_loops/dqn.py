"""Deep Q-network (Mnih et al. 2013, arXiv:1312.5602; 2015, Nature 518).

With double Q-learning (van Hasselt et al. 2016, arXiv:1509.06461, eq. 4), dueling heads (Wang et al. 2016,
arXiv:1511.06581) and targets of several steps (``inner_loops.n_step``), each of which can be switched off.

One inner update is a rollout of ``T`` steps in ``B`` environments by the epsilon-greedy policy, filed in a
uniform replay, and ``G`` minibatches of the Huber loss. Until the replay holds ``warmup`` transitions the
gradient steps are computed and thrown away: on parallel lanes a branch would cost as much.

**Deviations** from the first papers: acting and learning alternate in blocks; Adam instead of RMSProp; no
frame stacking; rewards are not clipped. Discounts are applied when a transition is filed, so a discount that
changes during life reaches old transitions only as they are replaced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from inner_loops.exploration import EpsilonGreedy, epsilon_greedy
from inner_loops.n_step import Transition
from inner_loops.networks.base import AgentNetwork
from inner_loops.networks.q_network import StreamNetwork, action_values, q_heads
from metalab.components import component, number, part, static
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite, select

__all__ = ["DQN", "DQNState", "Learner", "q_targets"]


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


class DQNState(NamedTuple):
    """One lifetime.

    Attributes:
        learner: networks and optimiser.
        experience: the replay.
        world: the environments.
        action_mask: [A] bool.
        steps: [] int32 environment steps lived.
    """

    learner: Learner
    experience: Experience
    world: World
    action_mask: Array
    steps: Array


@component
class DQN:
    """Deep Q-network: double, dueling, n-step, with uniform replay (Mnih et al. 2015)."""

    network: AgentNetwork = part(StreamNetwork(), doc="the action values", group="network")
    optimizer: OptimizerSettings = part(Adam(), doc="the agent's optimiser", group="optimizer")
    exploration: EpsilonGreedy = part(EpsilonGreedy(), doc="how it explores", group="exploration")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(8, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(8, doc="T, environment steps of one rollout", at_least=1)
    gradient_steps: int = static(8, doc="G, minibatches of one inner update", at_least=1)
    batch_size: int = static(64, doc="transitions of a minibatch", at_least=1)
    capacity: int = static(16_384, doc="transitions in the replay, a multiple of T * B", at_least=1)
    warmup: int = number(1_000, doc="transitions in the replay before the first gradient step", at_least=1)
    n_step: int = static(1, doc="n, steps of a transition", at_least=1)
    double: bool = static(True, doc="the online network chooses the action that the target network values")
    dueling: bool = static(True, doc="heads for value and advantages")
    stored: str = static(
        "float32", doc="how observations are kept; uint8 for whole numbers from 0 to 255 only", choices=STORED
    )
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)
    huber: float = number(1.0, doc="errors above count linearly", above=0.0)
    target_period: int = number(1, doc="gradient steps between two moves of the target network", at_least=1)
    target_rate: float = number(
        0.01, doc="share of the way to the network that a move goes; 1: a copy", above=0.0, at_most=1.0
    )

    def __post_init__(self) -> None:
        check_warmup(self.warmup, self.capacity)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T * B."""
        return self.num_envs * self.rollout_length

    def init_meta(self, key: Array) -> PyTree:
        """()."""
        del key
        return ()

    def init(self, key: Array, meta: PyTree, task: Task) -> DQNState:
        """A newborn agent; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters of their own, or actions are continuous.
        """
        del meta
        if task.params.hyper:
            names = ", ".join(sorted(task.params.hyper))
            raise ValueError(f"the tasks set {names} per lifetime; a DQN agent has its own numbers")
        network_key, env_key = jax.random.split(key)
        env_params = task.params.env_params
        params = self.network.init(network_key, self._heads(), self.environment)
        world = new_world(self.environment, env_key, env_params, self.num_envs)
        return DQNState(
            learner=Learner(params, params, self.optimizer.make().init(params), jnp.zeros((), jnp.int32)),
            experience=no_experience(
                world.obs[0], jnp.zeros((), jnp.int32), self.num_envs, self.capacity, self.n_step, self.stored
            ),
            world=world,
            action_mask=self.environment.action_mask(env_params),
            steps=jnp.zeros((), jnp.int32),
        )

    def step(self, key: Array, meta: PyTree, state: DQNState, batch: PyTree) -> tuple[DQNState, StepOut]:
        """One rollout and ``G`` gradient steps."""
        del meta, batch
        act_key, learn_key = jax.random.split(key)
        state, reward = self._act(act_key, state)
        learner, loss, ready = self._learn(learn_key, state)
        metrics = {"reward": reward, "loss": loss, "learning": ready.astype(loss.dtype)}
        return state._replace(learner=learner), StepOut(metrics=metrics)

    def evaluate(
        self, key: Array, meta: PyTree, state: DQNState, outs: StepOut, batch: PyTree
    ) -> tuple[DQNState, Evaluation]:
        """The score of the last episodes; there is no outer loss."""
        del key, meta, batch
        learned = jnp.maximum(jnp.sum(outs.metrics["learning"]), 1.0)
        metrics = {
            "loss": jnp.sum(outs.metrics["loss"]) / learned,
            "epsilon": self.exploration.epsilon(state.steps),
        }
        score = jnp.mean(state.world.episodes.last)
        return state, Evaluation(None, score, metrics, broken=~all_finite(state.learner.params))

    def assess(self, key: Array, meta: PyTree, state: DQNState) -> dict[str, Array]:
        """``return``: the mean score of the environments' last episodes."""
        del key, meta
        return {"return": jnp.mean(state.world.episodes.last)}

    def _heads(self) -> dict[str, int]:
        return q_heads(self.environment.num_actions, self.dueling)

    def _values(self, params: PyTree, obs: Array) -> Array:
        """[N, A] for observations ``[N, ...]``."""
        return action_values(jax.vmap(lambda one: self.network.apply(params, one, self._heads()))(obs))

    def _act(self, key: Array, state: DQNState) -> tuple[DQNState, Array]:
        """A rollout, filed; and its mean reward."""
        noise_key, env_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, (self.rollout_length, self.num_envs))
        epsilon = self.exploration.epsilon(state.steps)

        def choose(obs: Array, uniform: Array) -> tuple[Array, Array]:
            values = self._values(state.learner.params, obs)
            action = jax.vmap(epsilon_greedy, (0, 0, None, None))(uniform, values, epsilon, state.action_mask)
            return action, action

        world, steps = act(self.environment, env_key, state.world, noise, choose)
        experience = file_steps(state.experience, steps, self.discount)
        lived = state.steps + self.steps_per_update
        return state._replace(world=world, experience=experience, steps=lived), jnp.mean(steps.reward)

    def _learn(self, key: Array, state: DQNState) -> tuple[Learner, Array, Array]:
        """``G`` gradient steps: the learner, its mean loss, and whether they counted."""
        replay, optimizer = state.experience.replay, self.optimizer.make()
        ready = replay.size >= self.warmup

        def update(learner: Learner, minibatch: Transition) -> tuple[Learner, Array]:
            loss, gradient = jax.value_and_grad(self._loss)(
                learner.params, learner.target, minibatch, state.action_mask
            )
            change, moments = optimizer.update(gradient, learner.optimizer, learner.params)
            params = optax.apply_updates(learner.params, change)
            updates = learner.updates + 1
            rate = jnp.where(updates % self.target_period == 0, self.target_rate, 0.0)
            target = optax.incremental_update(params, learner.target, rate)
            return Learner(params, target, moments, updates), loss

        minibatches = replay.sample(key, (self.gradient_steps, self.batch_size))
        learner, losses = jax.lax.scan(update, state.learner, minibatches)
        return select(ready, learner, state.learner), jnp.where(ready, jnp.mean(losses), 0.0), ready

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
