"""An expert whose noise fades over its life: histories that improve without any learning.

Zisman et al. 2024, arXiv:2312.12275: where a world's best action is known, a policy that takes a random one
with a probability that falls linearly gives histories like those of a learner, without one. A floor above 0
keeps the last episodes below the optimum.

Worlds that know say so by ``expert_action(params, state) -> [] int32``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.classical import ClassicalAgent
from inner_loops.episodes import count_episodes
from inner_loops.experience import World, new_world, recorded
from inner_loops.exploration import EpsilonGreedy, epsilon_greedy
from inner_loops.n_step import Step
from metalab.components import component, part, static
from metalab.protocols import Evaluation, PyTree, StepOut, Task

__all__ = ["NoisedExpert"]


@component
class NoisedExpert(ClassicalAgent):
    """The best policy, with noise that fades over life (Zisman et al. 2024): a source, not a learner."""

    exploration: EpsilonGreedy = part(
        EpsilonGreedy(end=0.0), doc="the noise: probability of a random action", group="exploration"
    )
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(1, doc="B, parallel environments", at_least=1)
    rollout_length: int = static(20, doc="T, environment steps of one inner update", at_least=1)

    def init(self, key: Array, meta: PyTree, task: Task) -> World:
        """At birth; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters, or the world does not know its best action.
        """
        del meta
        self.check_task(task)
        if not hasattr(self.environment, "expert_action"):
            raise ValueError(
                f"noised_expert needs a world that knows its best action, and {self.environment} does not: "
                "choose dark_rooms or key_to_door_rooms, or a source that learns"
            )
        return new_world(self.environment, key, task.params.env_params, self.num_envs)

    def step(self, key: Array, meta: PyTree, state: World, batch: PyTree) -> tuple[World, StepOut]:
        """``T`` steps of every environment."""
        del meta, batch
        noise_key, env_key = jax.random.split(key)
        shape = (self.rollout_length, self.num_envs)
        xs = (jax.random.uniform(noise_key, shape), jax.random.split(env_key, shape))
        epsilon = self.exploration.epsilon(state.steps)
        act = jax.vmap(lambda env_state, uniform: self._act(state.params, env_state, uniform, epsilon))
        env_step = jax.vmap(self.environment.step, (0, 0, 0, None))

        def body(now: tuple[Array, PyTree], xs: tuple[Array, Array]) -> tuple[Any, Any]:
            obs, env_state = now
            action = act(env_state, xs[0])
            next_obs, env_state, reward, terminated, truncated, info = env_step(
                xs[1], env_state, action, state.params
            )
            step = Step(obs, action, reward, terminated, truncated, info["final_observation"])
            return (next_obs, env_state), (step, info["score"])

        (obs, env_state), (steps, score) = jax.lax.scan(body, (state.obs, state.state), xs)
        episodes = count_episodes(state.episodes, score, steps.terminated | steps.truncated)
        lived = state.steps + self.steps_per_update
        world = World(env_state, obs, state.params, episodes, lived)
        record = recorded(self.environment, world, steps)
        return world, StepOut(metrics={"reward": jnp.mean(steps.reward)}, record=record)

    def evaluate(
        self, key: Array, meta: PyTree, state: World, outs: StepOut, batch: PyTree
    ) -> tuple[World, Evaluation]:
        """The score of the last episodes; there is no outer loss."""
        del key, meta, outs, batch
        metrics = {"epsilon": self.exploration.epsilon(state.steps)}
        return state, Evaluation(None, state.episodes.score, metrics)

    def assess(self, key: Array, meta: PyTree, state: World) -> dict[str, Array]:
        """``return``: the mean score of the environments' last episodes."""
        del key, meta
        return {"return": state.episodes.score}

    def _act(self, params: PyTree, env_state: PyTree, uniform: Array, epsilon: Array) -> Array:
        best = self.environment.expert_action(params, env_state)
        mask = self.environment.action_mask(params)
        return epsilon_greedy(uniform, jax.nn.one_hot(best, mask.size), epsilon, mask)
