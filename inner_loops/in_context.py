"""An agent that learns in context, in its world: the state is the learner, the meta-parameters its algorithm.

One inner update is ``T`` steps of one environment (Kirsch et al. 2022, arXiv:2109.10781; Duan et al. 2016,
arXiv:1611.02779). A lifetime spans episodes: the agent's memory is born with the life and never reset at an
episode's end, which the agent is told of instead. What it hears before it acts at t is the observation at
t, the action at t - 1, and that action's reward.

There is no outer loss to differentiate: evolution moves the meta-parameters. Its fitness is the mean
*score* of a step, which is the reward less the noise that the world adds to it (the payout probability of a
bandit's arm, not the coin): the same expectation at a lower variance. The agent is paid, and hears, the
reward.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.agents.base import InContextAgent, Percept, Sizes
from inner_loops.agents.symla import SymLA
from inner_loops.distributions import Categorical
from inner_loops.trajectory import Trajectory
from metalab.components import component, part, static
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite

__all__ = ["InContext", "LifeState", "Tally"]

_NO_ACTION = -1  # of a newborn: its one-hot code is zero


class Tally(NamedTuple):
    """Sums over steps.

    Attributes:
        steps: [] int32.
        reward: [] what the agent was paid.
        score: [] what counts.
        ended: [] int32, episodes that ended.
        counted: [] by name, what the world tallies of every step.
    """

    steps: Array
    reward: Array
    score: Array
    ended: Array
    counted: dict[str, Array]


class LifeState(NamedTuple):
    """One lifetime.

    Attributes:
        memory: the agent's.
        env_state: of the world.
        env_params: the world.
        obs: the observation that is to be acted on.
        action: [] int32, of the step before; -1 at birth.
        reward: [] float32, of that step.
        done: [] bool, that step ended an episode.
        life: since birth.
        recent: of the last inner update.
    """

    memory: PyTree
    env_state: PyTree
    env_params: PyTree
    obs: Array
    action: Array
    reward: Array
    done: Array
    life: Tally
    recent: Tally


@component
class InContext:
    """Agent that learns in context (SymLA, MetaRNN, bandit algorithms) over a life of many episodes."""

    agent: InContextAgent = part(SymLA(), doc="the learning algorithm", group="agent")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    rollout_length: int = static(10, doc="T, environment steps of one inner update", at_least=1)
    score: str = static(
        "life",
        doc="mean score of a step since birth; or of a step or an episode in the stretch that is judged "
        "(reports: the last update)",
        choices=("life", "stretch", "episode"),
    )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T."""
        return self.rollout_length

    @property
    def sizes(self) -> Sizes:
        """Of the world; a state index is heard one-hot.

        Raises:
            ValueError: its actions are continuous.
        """
        environment = self.environment
        states = environment.num_states
        observations = math.prod(environment.observation_shape) if states is None else states
        return Sizes(observations, environment.num_actions)

    def init_meta(self, key: Array) -> PyTree:
        """The agent's parameters."""
        return self.agent.init_params(key, self.sizes)

    def init(self, key: Array, meta: PyTree, task: Task) -> LifeState:
        """A newborn agent; ``task.params`` is an ``AgentTask``."""
        memory_key, env_key = jax.random.split(key)
        env_params = task.params.env_params
        obs, env_state = self.environment.reset(env_key, env_params)
        nothing = self._nothing()
        return LifeState(
            memory=self.agent.init_memory(memory_key, meta, self.sizes),
            env_state=env_state,
            env_params=env_params,
            obs=obs,
            action=jnp.asarray(_NO_ACTION, jnp.int32),
            reward=jnp.zeros((), jnp.float32),
            done=jnp.zeros((), bool),
            life=nothing,
            recent=nothing,
        )

    def step(self, key: Array, meta: PyTree, state: LifeState, batch: PyTree) -> tuple[LifeState, StepOut]:
        """``T`` steps of perceiving, acting and being paid."""
        del batch
        # All random numbers at once: the loop over steps is a hot path, and a population may share them.
        action_key, env_key = jax.random.split(key)
        uniforms = jax.random.uniform(action_key, (self.rollout_length,))
        noise = jax.vmap(self.environment.randomness)(jax.random.split(env_key, self.rollout_length))
        mask = self.environment.action_mask(state.env_params)

        def body(state: LifeState, xs: tuple[Array, PyTree]) -> tuple[LifeState, tuple[Tally, Trajectory]]:
            return self._act(meta, state, mask, *xs)

        lived, (tallies, steps) = jax.lax.scan(body, state, (uniforms, noise))
        recent = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), tallies)
        life = jax.tree.map(jnp.add, state.life, recent)
        metrics = {"reward": recent.reward / self.rollout_length, "score": recent.score / self.rollout_length}
        record = jax.tree.map(lambda leaf: leaf[:, None], steps)  # an axis of one environment
        record = record._replace(obs=jnp.concatenate([record.obs, lived.obs[None, None]]), action_mask=mask)
        return lived._replace(life=life, recent=recent), StepOut(metrics, aux=recent, record=record)

    def evaluate(
        self, key: Array, meta: PyTree, state: LifeState, outs: StepOut, batch: PyTree
    ) -> tuple[LifeState, Evaluation]:
        """The mean score of a step, and what the world has tallied since birth."""
        del key, meta, batch
        stretch = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), outs.aux)
        broken = ~all_finite((state.memory, state.life.score))
        score = self._score(state.life, stretch)
        return state, Evaluation(
            loss=None,
            score=jnp.where(broken, jnp.nan, score),
            metrics={"reward": stretch.reward / jnp.maximum(stretch.steps, 1), **state.life.counted},
            broken=broken,
        )

    def assess(self, key: Array, meta: PyTree, state: LifeState) -> dict[str, Array]:
        """``return``, see ``score``, and the world's tallies, summed since birth."""
        del key, meta
        return {"return": self._score(state.life, state.recent), **state.life.counted}

    def _score(self, life: Tally, stretch: Tally) -> Array:
        """[] as ``score`` says; 0 before the first step."""
        counts = life if self.score == "life" else stretch
        # A stretch within one episode is counted as that episode.
        return counts.score / jnp.maximum(counts.ended if self.score == "episode" else counts.steps, 1)

    def _act(
        self, meta: PyTree, state: LifeState, mask: Array, uniform: Array, noise: PyTree
    ) -> tuple[LifeState, tuple[Tally, Trajectory]]:
        """One step: the state after it, what it adds to the sums, and what happened."""
        percept = self.percept(state.obs, state.action, state.reward, state.done, mask)
        memory, logits = self.agent.step(meta, state.memory, percept)
        action = Categorical(jnp.where(mask, logits, -jnp.inf)).sample(uniform)
        obs, env_state, reward, terminated, truncated, info = self.environment.step_with(
            noise, state.env_state, action, state.env_params
        )
        tally = Tally(
            steps=jnp.ones((), jnp.int32),
            reward=jnp.asarray(reward, jnp.float32),
            score=jnp.asarray(info["score"], jnp.float32),
            ended=jnp.logical_or(terminated, truncated).astype(jnp.int32),
            counted={
                name: jnp.asarray(info["tallies"][name], jnp.float32) for name in self.environment.tallies
            },
        )
        happened = Trajectory(
            obs=state.obs,
            action=action,
            reward=tally.reward,
            score=tally.score,
            terminated=terminated,
            truncated=truncated,
            next_obs=info["final_observation"],
            action_mask=mask,
        )
        after = state._replace(
            memory=memory,
            env_state=env_state,
            obs=obs,
            action=action,
            reward=tally.reward,
            done=happened.done,
        )
        return after, (tally, happened)

    def percept(self, obs: Array, action: Array, reward: Array, done: Array, mask: Array) -> Percept:
        """What the agent is told of an observation and of the step before it.

        Args:
            obs: as the environment gives it.
            action: [] int32; -1: there was none.
            reward: [] what that action was paid.
            done: [] bool, that step ended an episode.
            mask: [A] bool, the actions that this world has.
        """
        sizes = self.sizes
        is_index = self.environment.num_states is not None
        seen = jax.nn.one_hot(obs, sizes.observations) if is_index else obs.reshape(-1)
        return Percept(
            obs=seen.astype(jnp.float32),
            action=jax.nn.one_hot(action, sizes.actions),
            reward=reward,
            done=done.astype(jnp.float32),
            obs_mask=jnp.ones(sizes.observations, bool),
            action_mask=mask,
        )

    def _nothing(self) -> Tally:
        zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return Tally(none, zero, zero, none, dict.fromkeys(self.environment.tallies, zero))
