"""An actor-critic agent in ``B`` parallel environments whose update is a rule.

One inner update is a rollout of ``T`` steps in ``B`` environments, the rule's targets, and one step of the
agent's optimiser on the rule's loss. A lifetime's state holds the agent, its optimiser, its critic and its
environments.

The outer loss (Oh et al. 2020, arXiv:2007.08794, eqs. 4 and 5) is the A2C loss of a *fresh* rollout of the
updated agent, with the lifetime's critic as baseline, less the entropy bonus of beta_0 and plus the rule's
regularisers on the same data.

Deviations from that paper: the critic's form and trace decay are not given there; advantages of the outer
loss may be normalised per lifetime. With ``outer_reward: score`` the outer loss is about the world's score,
which leaves out the noise of a noisy chain: the same objective in expectation, at a lower variance, but
known to meta-training alone; agents are always paid, and rules always read, the noisy reward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.critics import Critic, TabularCritic, critic_advantages
from inner_loops.networks.base import AgentNetwork
from inner_loops.networks.tabular import TabularNetwork
from inner_loops.trajectory import Trajectory
from inner_loops.update_rules.base import RuleInputs, UpdateRule, log_policy, policy_entropy, taken
from inner_loops.update_rules.lpg import LPG
from metalab.components import component, number, part, static
from metalab.gradients import inner_grad
from metalab.optimizers import OptimizerSettings, Sgd
from metalab.protocols import Evaluation, Probe, PyTree, StepOut, Task
from metalab.trees import all_finite

__all__ = ["ActorCritic", "AgentState", "Episodes"]

_PROBE_ROLLOUTS = 8  # what a uniform policy visits in these many rollouts are the states asked about


class Episodes(NamedTuple):
    """Episode statistics that survive auto-reset.

    Attributes:
        running: [B] score of the episode in progress.
        last: [B] score of the last episode that ended; zero before the first.
        ended: [B] int32 number of episodes that ended.
    """

    running: Array
    last: Array
    ended: Array


class AgentState(NamedTuple):
    """One lifetime.

    Attributes:
        params: the agent's network.
        optimizer: its optimiser's state.
        critic: the lifetime's critic.
        env_state, obs: leaves ``[B, ...]``.
        episodes: statistics.
        env_params: the world.
        action_mask: [A] bool.
        hyper: the lifetime's hyperparameters, scalars by name.
        updates: [] int32 inner updates lived.
        lifetime: [] int32 inner updates to live.
    """

    params: PyTree
    optimizer: PyTree
    critic: PyTree
    env_state: PyTree
    obs: Array
    episodes: Episodes
    env_params: PyTree
    action_mask: Array
    hyper: dict[str, Array]
    updates: Array
    lifetime: Array


@component
class ActorCritic:
    """Actor-critic agent in parallel environments whose update is a rule (A2C, LPG)."""

    rule: UpdateRule = part(LPG(), doc="how the agent learns from a rollout", group="rule")
    network: AgentNetwork = part(TabularNetwork(), doc="the agent's network", group="network")
    optimizer: OptimizerSettings = part(Sgd(), doc="the agent's optimiser", group="optimizer")
    critic: Critic = part(TabularCritic(), doc="the lifetime's value function", group="critic")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(16, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(20, doc="T, environment steps of one rollout", at_least=1)
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)
    policy_entropy: float = number(
        0.01, doc="beta_0, bonus for the policy's entropy in the outer loss", at_least=0.0
    )
    normalize_outer_advantages: bool = static(
        True, doc="divide the outer loss's advantages by their deviation, per lifetime"
    )
    outer_reward: str = static(
        "reward",
        doc="what the outer loss is about: the agent's reward, or the world's noise-free score",
        choices=("reward", "score"),
    )
    entropy_floor: float = number(
        1e-4, doc="a lifetime whose policy entropy falls below has broken down", at_least=0.0
    )

    def __post_init__(self) -> None:
        # While jax rebuilds a component from its leaves a part may be a placeholder without properties.
        if self.outer_reward == "score" and getattr(self.rule, "is_learned", True) is False:
            raise ValueError(
                f"outer_reward='score' needs a learned rule: {type(self.rule).__name__} would learn from a "
                "critic of rewards that its agent cannot see; use outer_reward='reward'"
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T * B."""
        return self.num_envs * self.rollout_length

    def init_meta(self, key: Array) -> PyTree:
        """The rule's meta-parameters."""
        return self.rule.init_meta(key)

    def init(self, key: Array, meta: PyTree, task: Task) -> AgentState:
        """A newborn agent; ``task.params`` is an ``AgentTask``."""
        del meta
        network_key, critic_key, env_key = jax.random.split(key, 3)
        env_params, hyper = task.params.env_params, self._hyper(task.params.hyper)
        params = self.network.init(network_key, self._heads(), self.environment)
        reset = jax.vmap(self.environment.reset, (0, None))
        obs, env_state = reset(jax.random.split(env_key, self.num_envs), env_params)
        zeros = jnp.zeros(self.num_envs)
        return AgentState(
            params=params,
            optimizer=self.optimizer.make(hyper["learning_rate"]).init(params),
            critic=self.critic.init(critic_key, self.environment),
            env_state=env_state,
            obs=obs,
            episodes=Episodes(zeros, zeros, jnp.zeros(self.num_envs, jnp.int32)),
            env_params=env_params,
            action_mask=self._action_mask(env_params),
            hyper=hyper,
            updates=jnp.zeros((), jnp.int32),
            lifetime=jnp.asarray(task.lifetime, jnp.int32),
        )

    def step(self, key: Array, meta: PyTree, state: AgentState, batch: PyTree) -> tuple[AgentState, StepOut]:
        """One rollout and one update of the agent by the rule."""
        del batch
        state, trajectory = self._rollout(key, state)
        inputs = self._rule_inputs(state, trajectory)
        targets = self.rule.targets(meta, inputs)

        def loss(params: PyTree, trajectory: Trajectory, targets: PyTree, hyper: dict[str, Array]) -> Array:
            return self.rule.loss(self._outputs(params, trajectory.obs[:-1]), trajectory, targets, hyper)

        gradient = inner_grad(loss)(state.params, trajectory, targets, state.hyper)
        optimizer = self.optimizer.make(state.hyper["learning_rate"])
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        new_state = state._replace(
            params=optax.apply_updates(state.params, updates),
            optimizer=optimizer_state,
            critic=self.critic.update(state.critic, trajectory, inputs.advantages),
            updates=state.updates + 1,
        )
        metrics = {"reward": jnp.mean(trajectory.reward)}
        return new_state, StepOut(metrics=metrics, record=trajectory)

    def evaluate(
        self, key: Array, meta: PyTree, state: AgentState, outs: StepOut, batch: PyTree
    ) -> tuple[AgentState, Evaluation]:
        """The A2C loss of a fresh rollout at the updated parameters, and the rule's regularisers."""
        del outs, batch
        state, trajectory = self._rollout(key, state)
        inputs = self._rule_inputs(state, trajectory)
        outputs = {name: output[:-1] for name, output in inputs.outputs.items()}
        log_probs = log_policy(outputs["logits"], trajectory.action_mask)
        entropy = jnp.mean(policy_entropy(log_probs))
        advantages = inputs.advantages
        if self.normalize_outer_advantages:
            advantages = advantages / (jnp.std(advantages) + 1e-3)
        policy_gradient = jnp.mean(taken(log_probs, trajectory.action) * advantages)
        penalty, metrics = self.rule.regulariser(outputs, self.rule.targets(meta, inputs))
        loss = -policy_gradient - state.hyper["policy_entropy"] * entropy + penalty
        state = state._replace(critic=self.critic.update(state.critic, trajectory, inputs.advantages))
        broken = ~all_finite((state.params, loss)) | (entropy < self.entropy_floor)
        evaluation = Evaluation(
            loss=loss if self.rule.is_learned else None,
            score=jnp.mean(state.episodes.last),
            metrics={"policy_entropy": entropy, "reward": jnp.mean(trajectory.reward), **metrics},
            broken=broken,
        )
        return state, evaluation

    def assess(self, key: Array, meta: PyTree, state: AgentState) -> dict[str, Array]:
        """``return``: exact where the world is tabular, else the mean score of the last episodes."""
        del key, meta
        exact = getattr(self.environment, "exact_return", None)
        if exact is None or self.environment.num_states is None:
            return {"return": jnp.mean(state.episodes.last)}
        policy = jnp.exp(log_policy(state.params["logits"], state.action_mask))
        return {"return": exact(state.env_params, policy)}

    def probe(self, key: Array, meta: PyTree, state: AgentState) -> Probe:
        """log y of every state beside its exact value under the agent's policy.

        The states asked about are those that a uniform policy visits: the same for every rule. Those that
        the agent itself visits would be another set for a better agent.

        Raises:
            TypeError: the rule has no prediction vector, or the world no exact values.
        """
        del meta
        exact = getattr(self.environment, "exact_values", None)
        if "y" not in self._heads():
            raise TypeError(f"rule {type(self.rule).__name__} has no prediction vector y to probe")
        if exact is None or self.environment.num_states is None:
            raise TypeError(f"{self.environment} has no exact values of a table to probe y with")

        def act(state: AgentState, key: Array) -> tuple[AgentState, Array]:
            state, trajectory = self._rollout(key, state)
            return state, trajectory.obs[:-1]

        uniform = {**state.params, "logits": jnp.zeros_like(state.params["logits"])}
        wanderer = state._replace(params=uniform)
        _, seen = jax.lax.scan(act, wanderer, jax.random.split(key, _PROBE_ROLLOUTS))
        policy = jnp.exp(log_policy(state.params["logits"], state.action_mask))
        return Probe(
            features=jax.nn.log_softmax(state.params["y"]),
            targets=exact(state.env_params, policy, state.hyper["discount"]),
            visited=jnp.zeros(self.environment.num_states, bool).at[seen.reshape(-1)].set(True),
        )

    def _heads(self) -> dict[str, int]:
        return self.rule.heads(self.environment.num_actions)

    def _outputs(self, params: PyTree, obs: Array) -> dict[str, Array]:
        """Head name to ``[..., size]`` for ``[T, B, ...]`` observations."""
        heads = self._heads()
        return jax.vmap(jax.vmap(lambda one: self.network.apply(params, one, heads)))(obs)

    def _action_mask(self, env_params: PyTree) -> Array:
        mask = self.environment.action_mask(env_params)
        return jnp.ones(self.environment.num_actions, bool) if mask is None else mask

    def _hyper(self, of_lifetime: dict[str, Array]) -> dict[str, Array]:
        own = {
            "learning_rate": self.optimizer.learning_rate,  # pyright: ignore[reportAttributeAccessIssue]
            "target_weight": getattr(self.rule, "target_weight", 0.0),
            "discount": self.discount,
            "policy_entropy": self.policy_entropy,
        }
        unknown = sorted(set(of_lifetime) - set(own))
        if unknown:
            raise ValueError(
                f"the tasks set {', '.join(unknown)} per lifetime, which an actor-critic does not have; "
                f"it has {', '.join(own)}"
            )
        return {name: jnp.asarray(of_lifetime.get(name, value), float) for name, value in own.items()}

    def _rule_inputs(self, state: AgentState, trajectory: Trajectory) -> RuleInputs:
        discount = state.hyper["discount"]
        of_score = self.outer_reward == "score"
        judged = trajectory._replace(reward=trajectory.score) if of_score else trajectory
        return RuleInputs(
            trajectory=trajectory,
            outputs=self._outputs(state.params, trajectory.obs),
            advantages=critic_advantages(self.critic, state.critic, judged, discount),
            hyper=state.hyper,
            progress=state.updates / jnp.maximum(state.lifetime, 1),
            lifetime=jnp.maximum(state.lifetime, 1).astype(discount.dtype),
        )

    def _rollout(self, key: Array, state: AgentState) -> tuple[AgentState, Trajectory]:
        """``T`` steps of ``B`` environments; nothing in them is differentiated."""
        action_key, env_key = jax.random.split(key)
        shape = (self.rollout_length, self.num_envs)
        uniforms = jax.random.uniform(action_key, shape)
        keys = jax.random.split(env_key, shape)
        params = jax.lax.stop_gradient(state.params)
        heads = {"logits": self.environment.num_actions}
        env_step = jax.vmap(self.environment.step, (0, 0, 0, None))

        def body(carry: tuple[Array, PyTree, Episodes], xs: tuple[Array, Array]):
            obs, env_state, episodes = carry
            logits = jax.vmap(lambda one: self.network.apply(params, one, heads)["logits"])(obs)
            action = _sample(jnp.where(state.action_mask, logits, -1e9), xs[0])
            new_obs, env_state, reward, terminated, truncated, info = env_step(
                xs[1], env_state, action, state.env_params
            )
            episodes = _count(episodes, info["score"], terminated | truncated)
            reward = jnp.asarray(reward, uniforms.dtype)
            score = jnp.asarray(info["score"], uniforms.dtype)
            out = (obs, action, reward, score, terminated, truncated, info["final_observation"])
            return (new_obs, env_state, episodes), out

        carry = (state.obs, state.env_state, state.episodes)
        (obs, env_state, episodes), out = jax.lax.scan(body, carry, (uniforms, keys))
        trajectory = Trajectory(
            obs=jnp.concatenate([out[0], obs[None]]),
            action=out[1],
            reward=out[2],
            score=out[3],
            terminated=out[4],
            truncated=out[5],
            next_obs=out[6],
            action_mask=state.action_mask,
        )
        return state._replace(obs=obs, env_state=env_state, episodes=episodes), trajectory


def _sample(logits: Array, uniform: Array) -> Array:
    """[B] actions by inverting the distribution function: one random number per action.

    The first action whose cumulated probability exceeds the number always has a positive probability, so a
    forbidden action is never drawn.
    """
    cumulated = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
    return jnp.argmax(cumulated > uniform[:, None] * cumulated[:, -1:], axis=-1).astype(jnp.int32)


def _count(episodes: Episodes, score: Array, done: Array) -> Episodes:
    running = episodes.running + score
    return Episodes(
        running=jnp.where(done, 0.0, running),
        last=jnp.where(done, running, episodes.last),
        ended=episodes.ended + done,
    )
