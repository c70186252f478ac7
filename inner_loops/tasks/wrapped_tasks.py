"""Tasks whose worlds are wrapped: every lifetime draws its own permutations, matrices and the like."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax import Array

from inner_loops.environments.base import Environment
from inner_loops.environments.wrappers.base import Wrapper
from inner_loops.tasks.agent_task import AgentTaskDistribution
from metalab.components import component, is_component, part
from metalab.protocols import AdaptiveTaskDistribution, Task

__all__ = ["WrappedTasks"]


@component
class WrappedTasks:
    """Another task distribution's worlds in environment wrappers, drawn for each lifetime."""

    tasks: AgentTaskDistribution = part(doc="where the worlds come from", group="tasks")
    wrappers: tuple[Any, ...] = part((), doc="around them, the innermost first", group="environment")

    def __post_init__(self) -> None:
        if isinstance(self.tasks, AdaptiveTaskDistribution):
            raise ValueError(
                f"wrapped_tasks: tasks={type(self.tasks).__name__} adapts; put it around the wrapped tasks"
            )
        # While jax rebuilds a component from its leaves, parts may be anything.
        for wrapper in self.wrappers if isinstance(self.wrappers, tuple) else ():
            if is_component(wrapper) and not isinstance(wrapper, Wrapper):
                raise ValueError(f"wrapped_tasks: {type(wrapper).__name__} is no wrapper")
            if getattr(wrapper, "environment", None) is not None:
                raise ValueError(
                    f"wrapped_tasks: {type(wrapper).__name__} has an environment of its own; "
                    "leave it out: it is that of the tasks"
                )

    @property
    def environment(self) -> Environment:
        """The tasks' environment in all wrappers."""
        environment = self.tasks.environment
        for wrapper in self.wrappers:
            environment = wrapper.bare(environment)
        return environment

    @property
    def num_kinds(self) -> int:
        """The wrapped tasks' types of environment."""
        return self.tasks.num_kinds

    def sample(self, key: Array) -> Task:
        """Draws a world and what it is wrapped in."""
        task_key, wrap_key = jax.random.split(key)
        return self._wrapped(wrap_key, self.tasks.sample(task_key))

    def sample_set(self, key: Array, count: int) -> Task:
        """The tasks' own set, each world in wrappers of its own."""
        task_key, wrap_key = jax.random.split(key)
        tasks = self.tasks.sample_set(task_key, count)
        return jax.vmap(self._wrapped)(jax.random.split(wrap_key, count), tasks)

    def _wrapped(self, key: Array, task: Task) -> Task:
        environment, params = self.tasks.environment, task.params.env_params
        for index, wrapper in enumerate(self.wrappers):
            drawing = dataclasses.replace(wrapper, environment=environment)
            params = drawing.wrapped_params(jax.random.fold_in(key, index), params)
            environment = wrapper.bare(environment)
        return task._replace(params=task.params._replace(env_params=params))
