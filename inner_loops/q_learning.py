"""Tabular Q-learning (Watkins & Dayan 1992, "Q-learning", eq. 1) with an epsilon-greedy policy.

The table is updated after every step of the ``B`` parallel environments. Where several of them took the same
action in the same state, the table moves by the mean of their errors: a sum would be a larger step size.

An inner update is ``T`` such steps. **Deviation**: the step size is constant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.classical import ClassicalAgent
from inner_loops.experience import World, act_and_learn, new_world, recorded
from inner_loops.exploration import EpsilonGreedy, epsilon_greedy
from inner_loops.n_step import Step
from metalab.components import component, number, part, static
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite

__all__ = ["QLearning", "QLearningState", "updated_table"]


class QLearningState(NamedTuple):
    """One lifetime.

    Attributes:
        table: [num_states, A] action values.
        world: the environments.
    """

    table: Array
    world: World


@component
class QLearning(ClassicalAgent):
    """Tabular Q-learning with an epsilon-greedy policy (Watkins & Dayan 1992)."""

    exploration: EpsilonGreedy = part(EpsilonGreedy(), doc="how it explores", group="exploration")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(16, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(20, doc="T, environment steps of one inner update", at_least=1)
    learning_rate: float = number(0.1, doc="step size", above=0.0, at_most=1.0)
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)
    initial_value: float = number(0.0, doc="of the whole table; optimistic values explore")
    initial_spread: float = number(
        0.0, doc="above 0: values begin uniform from `initial_value` to so much above it", at_least=0.0
    )

    def init(self, key: Array, meta: PyTree, task: Task) -> QLearningState:
        """A newborn agent; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters of their own, or observations are no state indices.
        """
        del meta
        self.check_task(task)
        num_states, env_params = self.environment.num_states, task.params.env_params
        if num_states is None:
            raise ValueError(
                f"q_learning needs state indices, and {self.environment} observes "
                f"{self.environment.observation_shape} arrays: choose dqn"
            )
        shape = (num_states, self.environment.num_actions)
        return QLearningState(
            # Ties broken by chance: where all values are equal, the best action is the first one for ever.
            table=self.initial_value
            + self.initial_spread * jax.random.uniform(jax.random.fold_in(key, 1), shape),
            world=new_world(self.environment, key, env_params, self.num_envs),
        )

    def step(
        self, key: Array, meta: PyTree, state: QLearningState, batch: PyTree
    ) -> tuple[QLearningState, StepOut]:
        """``T`` steps of every environment, and the table's update after each."""
        del meta, batch
        noise_key, env_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, (self.rollout_length, self.num_envs))
        epsilon, mask = self._exploration(state)

        def choose(table: Array, obs: Array, uniform: Array) -> tuple[Array, Array]:
            action = jax.vmap(epsilon_greedy, (0, 0, None, None))(uniform, table[obs], epsilon, mask)
            return action, action

        def learn(table: Array, step: Step) -> Array:
            return updated_table(table, step, self.learning_rate, self.discount, mask)

        world, table, steps = act_and_learn(
            self.environment, env_key, state.world, noise, choose, state.table, learn
        )
        new_state = QLearningState(table, world)
        record = recorded(self.environment, world, steps)
        return new_state, StepOut(metrics={"reward": jnp.mean(steps.reward)}, record=record)

    def evaluate(
        self, key: Array, meta: PyTree, state: QLearningState, outs: StepOut, batch: PyTree
    ) -> tuple[QLearningState, Evaluation]:
        """The score of the last episodes; there is no outer loss."""
        del key, meta, outs, batch
        metrics = {"epsilon": self._exploration(state)[0]}
        broken = ~all_finite(state.table)
        return state, Evaluation(None, state.world.episodes.score, metrics, broken=broken)

    def assess(self, key: Array, meta: PyTree, state: QLearningState) -> dict[str, Array]:
        """``return``: exact, of the policy that explores, where the world can say; else of the last episodes.

        The greedy policy itself may stand still for ever between two actions of almost equal value.
        """
        del key, meta
        exact = getattr(self.environment, "exact_return", None)
        if exact is None:
            return {"return": state.world.episodes.score}
        epsilon, mask = self._exploration(state)
        best = jnp.argmax(jnp.where(mask, state.table, -jnp.inf), axis=-1)
        greedy = jax.nn.one_hot(best, mask.size, dtype=state.table.dtype)
        return {
            "return": exact(state.world.params, (1.0 - epsilon) * greedy + epsilon * mask / jnp.sum(mask))
        }

    def _exploration(self, state: QLearningState) -> tuple[Array, Array]:
        """Epsilon [] and the actions that are allowed, [A] bool."""
        world = state.world
        return self.exploration.epsilon(world.steps), self.environment.action_mask(world.params)


def updated_table(
    table: Array, step: Step, learning_rate: Array | float, discount: Array | float, mask: Array
) -> Array:
    """The table after one step of ``B`` environments (Watkins & Dayan 1992, eq. 1).

    Args:
        table: [num_states, A].
        step: leaves ``[B, ...]``.
        learning_rate: [].
        discount: [] gamma.
        mask: [A] bool, the actions that are allowed.
    """
    chex.assert_rank([table, step.obs, step.action], [2, 1, 1])
    v_t = jnp.max(jnp.where(mask, table[step.next_obs], -jnp.inf), axis=-1)
    goal = step.reward + discount * jnp.where(step.terminated, 0.0, v_t)
    error = goal - table[step.obs, step.action]
    same = (step.obs[:, None] == step.obs) & (step.action[:, None] == step.action)
    return table.at[step.obs, step.action].add(learning_rate * error / jnp.sum(same, axis=-1))
