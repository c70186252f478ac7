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

A hand-written rule has no parameters to meta-learn, but its hyperparameters can be exposed
(``metalab.exposure``) and tuned by the gradient of the same outer loss: the self-tuning actor-critic (Zahavy
et al. 2020, arXiv:2002.12928; Xu et al. 2018, arXiv:1805.09801). The objective must stay put while they move,
so the loss is offered only where its own discount and trace decay are given (``outer_discount``,
``outer_trace_decay``; ``policy_entropy`` is its own too). Its advantages are constants of the meta-gradient;
those of the inner updates are not, and neither is a tabular critic. Deviation: the outer loss has no value
loss, for the critic is not part of the agent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from inner_loops.critics import Critic, TabularCritic, critic_advantages
from inner_loops.episodes import Episodes, count_episodes, no_episodes
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

__all__ = ["ActorCritic", "AgentState"]

_PROBE_ROLLOUTS = 8  # what a uniform policy visits in these many rollouts are the states asked about


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
        hyper: the hyperparameters that the task sets for this lifetime, scalars by name.
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
    outer_discount: float | None = number(
        None, doc="gamma of the outer loss; none: the agent's own", at_least=0.0, at_most=1.0
    )
    outer_trace_decay: float | None = number(
        None, doc="lambda of the outer loss's advantages; none: the critic's own", at_least=0.0, at_most=1.0
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
        env_params, of_task = task.params.env_params, task.params.hyper
        learning_rate = self._hyper(of_task)["learning_rate"]
        params = self.network.init(network_key, self._heads(), self.environment)
        reset = jax.vmap(self.environment.reset, (0, None))
        obs, env_state = reset(jax.random.split(env_key, self.num_envs), env_params)
        return AgentState(
            params=params,
            optimizer=self.optimizer.make(learning_rate).init(params),
            critic=self.critic.init(critic_key, self.environment),
            env_state=env_state,
            obs=obs,
            episodes=no_episodes(self.num_envs),
            env_params=env_params,
            action_mask=self._action_mask(env_params),
            hyper={name: jnp.asarray(value, float) for name, value in of_task.items()},
            updates=jnp.zeros((), jnp.int32),
            lifetime=jnp.asarray(task.lifetime, jnp.int32),
        )

    def step(self, key: Array, meta: PyTree, state: AgentState, batch: PyTree) -> tuple[AgentState, StepOut]:
        """One rollout and one update of the agent by the rule."""
        del batch
        state, trajectory = self._rollout(key, state)
        inputs = self._rule_inputs(state, trajectory)
        targets = self.rule.targets(meta, inputs)
        gradient = inner_grad(_rule_loss)(state.params, self, trajectory, targets, inputs.hyper)
        optimizer = self.optimizer.make(inputs.hyper["learning_rate"])
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
        advantages = jax.lax.stop_gradient(self._outer_advantages(state, trajectory, inputs))
        if self.normalize_outer_advantages:
            advantages = advantages / (jnp.std(advantages) + 1e-3)
        policy_gradient = jnp.mean(taken(log_probs, trajectory.action) * advantages)
        penalty, metrics = self.rule.regulariser(outputs, self.rule.targets(meta, inputs))
        loss = -policy_gradient - inputs.hyper["policy_entropy"] * entropy + penalty
        state = state._replace(critic=self.critic.update(state.critic, trajectory, inputs.advantages))
        broken = ~all_finite((state.params, loss)) | (entropy < self.entropy_floor)
        evaluation = Evaluation(
            loss=loss if self._has_outer_loss else None,
            score=state.episodes.score,
            metrics={"policy_entropy": entropy, "reward": jnp.mean(trajectory.reward), **metrics},
            broken=broken,
        )
        return state, evaluation

    def assess(self, key: Array, meta: PyTree, state: AgentState) -> dict[str, Array]:
        """``return``: exact where the world is tabular, else the mean score of the last episodes."""
        del key, meta
        exact = getattr(self.environment, "exact_return", None)
        if exact is None or self.environment.num_states is None:
            return {"return": state.episodes.score}
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
            targets=exact(state.env_params, policy, self._hyper(state.hyper)["discount"]),
            visited=jnp.zeros(self.environment.num_states, bool).at[seen.reshape(-1)].set(True),
        )

    @property
    def _has_outer_loss(self) -> bool:
        """A learned rule has one; for a hand-written one it must not move with the hyperparameters."""
        fixed = self.outer_discount is not None and self.outer_trace_decay is not None
        return self.rule.is_learned or fixed

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
        hyper = self._hyper(state.hyper)
        discount = hyper["discount"]
        return RuleInputs(
            trajectory=trajectory,
            outputs=self._outputs(state.params, trajectory.obs),
            advantages=critic_advantages(self.critic, state.critic, self._judged(trajectory), discount),
            hyper=hyper,
            progress=state.updates / jnp.maximum(state.lifetime, 1),
            lifetime=jnp.maximum(state.lifetime, 1).astype(discount.dtype),
        )

    def _judged(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory as the critic sees it."""
        of_score = self.outer_reward == "score"
        return trajectory._replace(reward=trajectory.score) if of_score else trajectory

    def _outer_advantages(self, state: AgentState, trajectory: Trajectory, inputs: RuleInputs) -> Array:
        """[T, B] under the outer loss's own discount and trace decay, where it has them."""
        if self.outer_discount is None and self.outer_trace_decay is None:
            return inputs.advantages
        discount = inputs.hyper["discount"] if self.outer_discount is None else self.outer_discount
        decay = self.critic.trace_decay if self.outer_trace_decay is None else self.outer_trace_decay
        return critic_advantages(self.critic, state.critic, self._judged(trajectory), discount, decay)

    def _rollout(self, key: Array, state: AgentState) -> tuple[AgentState, Trajectory]:
        """``T`` steps of ``B`` environments; nothing in them is differentiated."""
        action_key, env_key = jax.random.split(key)
        shape = (self.rollout_length, self.num_envs)
        uniforms = jax.random.uniform(action_key, shape)
        keys = jax.random.split(env_key, shape)
        params = jax.lax.stop_gradient(state.params)
        heads = {"logits": self.environment.num_actions}
        env_step = jax.vmap(self.environment.step, (0, 0, 0, None))

        def body(carry: tuple[Array, PyTree], xs: tuple[Array, Array]):
            obs, env_state = carry
            logits = jax.vmap(lambda one: self.network.apply(params, one, heads)["logits"])(obs)
            action = _sample(jnp.where(state.action_mask, logits, -1e9), xs[0])
            new_obs, env_state, reward, terminated, truncated, info = env_step(
                xs[1], env_state, action, state.env_params
            )
            reward = jnp.asarray(reward, uniforms.dtype)
            score = jnp.asarray(info["score"], uniforms.dtype)
            out = (obs, action, reward, score, terminated, truncated, info["final_observation"])
            return (new_obs, env_state), out

        carry = (state.obs, state.env_state)
        (obs, env_state), out = jax.lax.scan(body, carry, (uniforms, keys))
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
        episodes = count_episodes(state.episodes, trajectory.score, trajectory.done)
        return state._replace(obs=obs, env_state=env_state, episodes=episodes), trajectory


def _rule_loss(
    params: PyTree, agent: ActorCritic, trajectory: Trajectory, targets: PyTree, hyper: dict[str, Array]
) -> Array:
    """[] the rule's loss; what a meta-gradient may move is an argument, the agent's numbers included."""
    return agent.rule.loss(agent._outputs(params, trajectory.obs[:-1]), trajectory, targets, hyper)


def _sample(logits: Array, uniform: Array) -> Array:
    """[B] actions by inverting the distribution function: one random number per action.

    The first action whose cumulated probability exceeds the number always has a positive probability, so a
    forbidden action is never drawn.
    """
    cumulated = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
    return jnp.argmax(cumulated > uniform[:, None] * cumulated[:, -1:], axis=-1).astype(jnp.int32)
