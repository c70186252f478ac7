"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), discrete or continuous actions.

One inner update is a rollout of ``T`` steps in ``B`` environments, its generalised advantages (Schulman et
al. 2016, arXiv:1506.02438), and ``E`` epochs of ``M`` minibatches on the clipped surrogate (eq. 7), the
value loss and the entropy (eq. 9).

**Deviations**, usual in implementations: the value loss is clipped around the old value (``clip_value``);
advantages are normalised in each minibatch; the step size falls linearly over the lifetime (``anneal``); at
a time limit the value of the observation before the reset is bootstrapped from. A continuous policy acts on
``[-1, 1]``, clipped, which is mapped to the environment's bounds. Moments of observations and of returns
change between rollouts, not within them.

With ``outer_loss`` an evaluation offers a loss for meta-gradients: that of a fresh rollout of the updated
agent under the ``outer_*`` numbers, which stay as they are (the self-tuning actor-critic, Zahavy et al.
2020, arXiv:2002.12928). The update is differentiable in every number of the component; by ``clip`` the
derivative is zero almost everywhere, since it only decides which samples have a gradient: tune it by
evolution or by a population.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.classical import ClassicalAgent, in_bounds
from inner_loops.distributions import Categorical, Distribution, Gaussian
from inner_loops.episodes import Episodes, count_episodes, no_episodes
from inner_loops.minibatches import SHUFFLES, minibatch_rows
from inner_loops.networks.base import AgentNetwork
from inner_loops.networks.policy import TowerNetwork
from inner_loops.normalization import (
    Moments,
    ReturnScale,
    no_moments,
    no_returns,
    scale_rewards,
    standardize,
    with_batch,
)
from inner_loops.reset_pool import rollout_steps
from inner_loops.returns import generalized_advantages
from inner_loops.trajectory import Trajectory
from metalab.components import component, number, part, static
from metalab.gradients import inner_grad
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite

__all__ = ["PPO", "PPOState", "Samples", "Weights", "advantages", "ppo_loss", "seen"]


class Samples(NamedTuple):
    """What the loss reads of ``N`` samples: steps, or with a memory whole sequences ``[N, T, ...]``.

    Attributes:
        obs: leaves ``[N, ...]``, what the network sees.
        action: [N] int32 or [N, D].
        log_prob: [N] of the action under the policy that took it.
        value: [N] before the update.
        advantage: [N].
        target: [N] lambda-return.
    """

    obs: PyTree
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array


class Weights(NamedTuple):
    """The numbers of the loss, [] each.

    Attributes:
        clip: epsilon.
        entropy, value: weights of the bonus and of the value loss.
    """

    clip: Array
    entropy: Array
    value: Array


class PPOState(NamedTuple):
    """One lifetime.

    Attributes:
        params: ``network``, ``log_std`` [D] where actions are continuous, and those of a memory.
        optimizer: its state.
        env_state, obs: leaves ``[B, ...]``.
        episodes: statistics.
        env_params: the world.
        obs_moments: of observations; None: not normalised.
        return_scale: of rewards; None: not normalised.
        updates: [] int32 inner updates lived.
        lifetime: [] int32 inner updates to live.
        memory: leaves ``[B, ...]``, what an agent with a memory carries from step to step; else ().
    """

    params: PyTree
    optimizer: PyTree
    env_state: PyTree
    obs: Array
    episodes: Episodes
    env_params: PyTree
    obs_moments: Moments | None
    return_scale: ReturnScale | None
    updates: Array
    lifetime: Array
    memory: PyTree = ()


@component
class PPO(ClassicalAgent):
    """Proximal policy optimisation, with discrete or continuous actions (Schulman et al. 2017)."""

    network: AgentNetwork = part(TowerNetwork(), doc="policy and value", group="network")
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=2.5e-4, eps=1e-5, max_grad_norm=0.5),
        doc="the agent's optimiser",
        group="optimizer",
    )
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(4, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(128, doc="T, environment steps of one rollout", at_least=1)
    epochs: int = static(4, doc="E, passes over a rollout", at_least=1)
    minibatches: int = static(4, doc="M, minibatches of a pass", at_least=1)
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)
    gae_lambda: float = number(0.95, doc="lambda of the advantages", at_least=0.0, at_most=1.0)
    clip: float = number(0.2, doc="epsilon, how far a probability ratio or a value may move", above=0.0)
    entropy: float = number(0.01, doc="weight of the policy's entropy", at_least=0.0)
    value_weight: float = number(0.5, doc="weight of the value loss", at_least=0.0)
    clip_value: bool = static(True, doc="clip the value loss around the old value")
    normalize_advantages: bool = static(True, doc="advantages have mean 0 and deviation 1 in a minibatch")
    normalize_observations: bool = static(False, doc="standardise observations by running moments")
    normalize_rewards: bool = static(False, doc="divide rewards by the deviation of the discounted return")
    anneal: bool = static(True, doc="the learning rate falls linearly to 0 over the lifetime")
    shuffle: str = static("swap_or_not", doc="how samples are dealt to minibatches", choices=SHUFFLES)
    reset_pool: int = static(
        0, doc="resets made for each environment before a rollout; 0: one at every step", at_least=0
    )
    outer_loss: bool = static(False, doc="evaluate offers a loss for meta-gradients, on a fresh rollout")
    outer_discount: float = number(0.99, doc="gamma of the outer loss", at_least=0.0, at_most=1.0)
    outer_gae_lambda: float = number(0.95, doc="lambda of the outer loss", at_least=0.0, at_most=1.0)
    outer_entropy: float = number(0.0, doc="weight of the entropy in the outer loss", at_least=0.0)
    outer_value_weight: float = number(0.25, doc="weight of the outer loss's value loss", at_least=0.0)

    def init(self, key: Array, meta: PyTree, task: Task) -> PPOState:
        """A newborn agent; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters of their own.
        """
        del meta
        self.check_task(task)
        network_key, env_key = jax.random.split(key)
        env_params = task.params.env_params
        params = self._init_params(network_key)
        reset = jax.vmap(self.environment.reset, (0, None))
        obs, env_state = reset(jax.random.split(env_key, self.num_envs), env_params)
        return PPOState(
            params=params,
            optimizer=self.optimizer.make().init(params),
            env_state=env_state,
            obs=obs,
            episodes=no_episodes(self.num_envs),
            env_params=env_params,
            obs_moments=no_moments(obs.shape[1:]) if self.normalize_observations else None,
            return_scale=no_returns(self.num_envs) if self.normalize_rewards else None,
            updates=jnp.zeros((), jnp.int32),
            lifetime=jnp.asarray(task.lifetime, jnp.int32),
            memory=self._no_memory(),
        )

    def step(self, key: Array, meta: PyTree, state: PPOState, batch: PyTree) -> tuple[PPOState, StepOut]:
        """One rollout, and ``E * M`` steps of the optimiser on it."""
        del meta, batch
        rollout_key, shuffle_key = jax.random.split(key)
        before, scale = state, state.return_scale
        state, record = self._rollout(rollout_key, before)
        reward = record.reward
        if scale is not None:
            scale, reward = scale_rewards(scale, reward, record.done, jnp.asarray(self.discount))
        samples = self._samples(before, record, reward, self.discount, self.gae_lambda)
        params, optimizer = self._learn(shuffle_key, state, samples, record.action_mask)
        new_state = state._replace(
            params=params, optimizer=optimizer, return_scale=scale, updates=state.updates + 1
        )
        return new_state, StepOut(metrics={"reward": jnp.mean(record.reward)}, record=record)

    def evaluate(
        self, key: Array, meta: PyTree, state: PPOState, outs: StepOut, batch: PyTree
    ) -> tuple[PPOState, Evaluation]:
        """The score of the last episodes and, with ``outer_loss``, the loss of a fresh rollout."""
        del meta, outs, batch
        loss = None
        broken = ~all_finite(state.params)
        if self.outer_loss:
            state, samples, mask = self._outer_samples(key, state)
            loss = self._outer_loss(state.params, samples, mask)
            broken |= ~jnp.isfinite(loss)
        return state, Evaluation(loss=loss, score=state.episodes.score, metrics={}, broken=broken)

    def assess(self, key: Array, meta: PyTree, state: PPOState) -> dict[str, Array]:
        """``return``: the mean score of the environments' last episodes.

        A world that judges by itself (``Trials.judge``) does so instead, with the policy as it is.
        """
        del meta
        judge = getattr(self.environment, "judge", None)
        if judge is None:
            return {"return": state.episodes.score}
        mask = self._mask(state.env_params)

        def act(memory: PyTree, obs: Array, noise: Array) -> tuple[PyTree, Array]:
            return self._act(state.params, memory, seen(state.obs_moments, obs), noise, mask)

        return judge(key, state.env_params, self._no_memory(), act, self._noted, self.num_envs)

    def _no_memory(self) -> PyTree:
        """That of a newborn, leaves ``[B, ...]``."""
        return ()

    def _init_params(self, key: Array) -> dict[str, PyTree]:
        params = {"network": self.network.init(key, self._heads(), self._seen_world)}
        size = self.environment.action_size
        return params if size is None else {**params, "log_std": jnp.zeros(size)}

    @property
    def _seen_world(self) -> Any:
        """What the network asks for the shape of observations."""
        return self.environment

    def _heads(self) -> dict[str, int]:
        return self._policy_head() | {"value": 1}

    def _policy_head(self) -> dict[str, int]:
        size = self.environment.action_size
        return {"logits": self.environment.num_actions} if size is None else {"mean": size}

    def _mask(self, env_params: PyTree) -> Array:
        """[A] bool; [0] where actions are continuous."""
        if self.environment.action_size is not None:
            return jnp.ones((0,), bool)
        return self.environment.action_mask(env_params)

    def _outputs(self, params: PyTree, obs: PyTree, heads: dict[str, int]) -> dict[str, Array]:
        """Head name to ``[N, size]`` for what ``Samples.obs`` holds of ``N`` samples."""
        return jax.vmap(lambda one: self.network.apply(params["network"], one, heads))(obs)

    def _policy(self, params: PyTree, outputs: dict[str, Array], mask: Array) -> Categorical | Gaussian:
        if "mean" in outputs:
            return Gaussian(outputs["mean"], params["log_std"])
        return Categorical(jnp.where(mask, outputs["logits"], -1e9))

    def _noise(self, key: Array) -> Array:
        """[T, B] or [T, B, D], what the policy of every step of a rollout draws from."""
        shape, size = (self.rollout_length, self.num_envs), self.environment.action_size
        return jax.random.uniform(key, shape) if size is None else jax.random.normal(key, (*shape, size))

    def _in_bounds(self, action: Array, env_params: PyTree) -> Array:
        """Actions as the environment wants them."""
        if self.environment.action_size is None:
            return action
        return in_bounds(self.environment, env_params, jnp.clip(action, -1.0, 1.0))

    def _learning_rate(self, state: PPOState) -> Array:
        rate = jnp.asarray(self.optimizer.learning_rate)  # pyright: ignore[reportAttributeAccessIssue]
        left = jnp.maximum(1.0 - state.updates / jnp.maximum(state.lifetime, 1), 0.0)
        return rate * left.astype(rate.dtype) if self.anneal else rate

    def _act(
        self, params: PyTree, memory: PyTree, obs: Array, noise: Array, mask: Array
    ) -> tuple[PyTree, Array]:
        """Memory after a step and its actions ``[B, ...]``, for observations ``[B, ...]``."""
        outputs = self._outputs(params, obs, self._policy_head())
        return memory, self._policy(params, outputs, mask).sample(noise)

    def _noted(self, memory: PyTree, action: Array, reward: Array, done: Array) -> PyTree:
        """Memory with what came of a step, ``[B, ...]``."""
        del action, reward, done
        return memory

    def _rollout(self, key: Array, state: PPOState) -> tuple[PPOState, Trajectory]:
        """``T`` steps of ``B`` environments; nothing in them is differentiated."""
        action_key, env_key = jax.random.split(key)
        params, env_params = jax.lax.stop_gradient(state.params), state.env_params
        mask = self._mask(env_params)
        xs, env_step = rollout_steps(
            self.environment, env_key, self.rollout_length, self.num_envs, self.reset_pool, env_params
        )

        def body(carry: tuple[Array, PyTree, PyTree], xs: tuple[Array, PyTree]):
            obs, env_state, memory = carry
            memory, action = self._act(params, memory, seen(state.obs_moments, obs), xs[0], mask)
            new_obs, env_state, reward, terminated, truncated, info = env_step(
                xs[1], env_state, self._in_bounds(action, env_params)
            )
            memory = self._noted(memory, action, reward, terminated | truncated)
            out = (obs, action, reward, info["score"], terminated, truncated, info["final_observation"])
            return (new_obs, env_state, memory), out

        carry = (state.obs, state.env_state, state.memory)
        (obs, env_state, memory), out = jax.lax.scan(body, carry, (self._noise(action_key), xs))
        record = Trajectory(jnp.concatenate([out[0], obs[None]]), *out[1:], mask)
        moments = None if state.obs_moments is None else with_batch(state.obs_moments, out[0])
        episodes = count_episodes(state.episodes, record.score, record.done)
        state = state._replace(
            obs=obs, env_state=env_state, episodes=episodes, obs_moments=moments, memory=memory
        )
        return state, record

    def _samples(
        self, state: PPOState, record: Trajectory, reward: Array, discount: Any, gae_lambda: Any
    ) -> Samples:
        """[T * B] samples of the rollout that ``state`` made, with ``reward`` [T, B] in place of its own."""
        moments = state.obs_moments
        obs, next_obs = (_flat(seen(moments, leaf)) for leaf in (record.obs[:-1], record.next_obs))
        outputs = self._outputs(state.params, obs, self._heads())
        value = outputs["value"][:, 0]
        next_value = self._outputs(state.params, next_obs, {"value": 1})["value"]
        judged, shape = record._replace(reward=reward), reward.shape
        advantage = advantages(
            judged, value.reshape(shape), next_value.reshape(shape), discount, gae_lambda
        ).reshape(-1)
        action = _flat(record.action)
        log_prob = self._policy(state.params, outputs, record.action_mask).log_prob(action)
        return Samples(obs, action, log_prob, value, advantage, advantage + value)

    def _learn(self, key: Array, state: PPOState, samples: Samples, mask: Array) -> tuple[PyTree, PyTree]:
        """Parameters and optimiser state after all epochs."""
        optimizer = self.optimizer.make(self._learning_rate(state))
        weights = Weights(*map(jnp.asarray, (self.clip, self.entropy, self.value_weight)))

        def loss(params: PyTree, samples: Samples, mask: Array, weights: Weights) -> Array:
            outputs = self._outputs(params, samples.obs, self._heads())
            policy = self._policy(params, outputs, mask)
            return ppo_loss(
                policy, outputs["value"][..., 0], samples, weights, self.clip_value, self.normalize_advantages
            )

        gradient = inner_grad(loss)

        def body(carry: tuple[PyTree, PyTree], rows: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, moments = carry
            minibatch = jax.tree.map(lambda leaf: leaf[rows], samples)
            direction = gradient(params, minibatch, mask, weights)
            updates, moments = optimizer.update(direction, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        rows = minibatch_rows(key, samples.value.shape[0], self.epochs, self.minibatches, self.shuffle)
        return jax.lax.scan(body, (state.params, state.optimizer), rows)[0]

    def _outer_samples(self, key: Array, state: PPOState) -> tuple[PPOState, Samples, Array]:
        """A fresh rollout as constants of the outer loss, and its action mask."""
        before = state
        state, record = self._rollout(key, before)
        samples = self._samples(before, record, record.reward, self.outer_discount, self.outer_gae_lambda)
        return state, jax.lax.stop_gradient(samples), record.action_mask

    def _outer_loss(self, params: PyTree, samples: Samples, mask: Array) -> Array:
        """[] the actor-critic loss: that of PPO at a ratio of 1, where nothing is clipped."""
        outputs = self._outputs(params, samples.obs, self._heads())
        policy = self._policy(params, outputs, mask)
        weights = Weights(*map(jnp.asarray, (jnp.inf, self.outer_entropy, self.outer_value_weight)))
        return ppo_loss(policy, outputs["value"][..., 0], samples, weights, False, self.normalize_advantages)


def ppo_loss(
    policy: Distribution,
    value: Array,
    samples: Samples,
    weights: Weights,
    clip_value: bool = True,
    normalize_advantages: bool = True,
) -> Array:
    """[] eq. 9: clipped surrogate, value loss and entropy, means over ``N`` samples or all steps ``[N, T]``.

    Args:
        policy: the present one at ``samples.obs``.
        value: [N] present values.
        samples: constants.
        weights: of the terms.
        clip_value: the larger of the value's error and that of the value moved by at most ``clip`` from the
            old one.
        normalize_advantages: over these samples.
    """
    advantage = samples.advantage
    if normalize_advantages:
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    clip = weights.clip
    ratio = jnp.exp(policy.log_prob(samples.action) - samples.log_prob)
    # eq. 7
    surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)
    error = jnp.square(value - samples.target)
    if clip_value:
        moved = samples.value + jnp.clip(value - samples.value, -clip, clip)
        error = jnp.maximum(error, jnp.square(moved - samples.target))
    value_loss = 0.5 * jnp.mean(error)
    bonus = weights.entropy * jnp.mean(policy.entropy())
    return weights.value * value_loss - jnp.mean(surrogate) - bonus


def advantages(record: Trajectory, value: Array, next_value: Array, discount: Any, gae_lambda: Any) -> Array:
    """[T, B] generalised advantages of every environment.

    Args:
        record: of the rollout.
        value: [T, B] of what was acted on.
        next_value: [T, B] of what was reached, before any reset.
        discount, gae_lambda: [].
    """
    return jax.vmap(generalized_advantages, (1, 1, 1, 1, 1, None, None), 1)(
        record.reward,
        value,
        next_value,
        record.terminated,
        record.truncated,
        jnp.asarray(discount),
        jnp.asarray(gae_lambda),
    )


def seen(moments: Moments | None, obs: Array) -> Array:
    """Observations as the network sees them: standardised where there are moments."""
    return obs if moments is None else standardize(moments, obs)


def _flat(leaf: Array) -> Array:
    """``[T, B, ...]`` to ``[T * B, ...]``."""
    return leaf.reshape(-1, *leaf.shape[2:])
