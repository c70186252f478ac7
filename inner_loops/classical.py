"""What all hand-written agents share: no meta-parameters, and numbers of their own."""

from __future__ import annotations

from typing import Any

from jax import Array

from inner_loops.environments.base import Environment
from metalab.protocols import PyTree, Task

__all__ = ["ClassicalAgent", "in_bounds"]


class ClassicalAgent:
    """An inner loop of ``T`` steps in ``B`` environments a time, with nothing to meta-learn.

    Its numbers can still be exposed as meta-parameters (``metalab.exposure``).
    """

    num_envs: int
    rollout_length: int

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T * B."""
        return self.num_envs * self.rollout_length

    def init_meta(self, key: Array) -> PyTree:
        """()."""
        del key
        return ()

    def check_task(self, task: Task) -> None:
        """Refuses tasks whose ``AgentTask`` sets hyperparameters, which this agent would not read.

        Raises:
            ValueError: they do.
        """
        if task.params.hyper:
            names = ", ".join(sorted(task.params.hyper))
            agent = type(self).__name__
            raise ValueError(f"the tasks set {names} per lifetime; a {agent} agent has its own numbers")


def in_bounds(environment: Environment, params: Any, action: Array) -> Array:
    """Continuous actions [..., D] in ``[-1, 1]`` as the environment wants them."""
    low, high = environment.action_bounds(params)
    return low + 0.5 * (high - low) * (action + 1.0)
