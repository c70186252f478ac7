"""One task that holds many: every trial of its world draws one of them (RL^2; Duan et al. 2016).

An agent that lives here does not learn a task but how to find one out. It is judged on other tasks than it is
trained on: see ``inner_loops.environments.trials``.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from inner_loops.environments.trials import TrialParams, Trials
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, part, static
from metalab.protocols import Task

__all__ = ["TrialTasks"]


@component
class TrialTasks:
    """Trials of several episodes on a task drawn for each: where RL^2 agents live (Duan et al. 2016)."""

    tasks: Any = part(doc="a finite distribution; trials draw from all of it", group="tasks")
    judged_on: Any = part(
        None, doc="tasks that reports judge on; those of the trials if silent", group="tasks"
    )
    episodes: int = static(10, doc="of a trial", at_least=1)
    factors: tuple[int, ...] | None = static(
        None, doc="sizes of the grid that a state index counts through: rows and columns are seen apart"
    )
    lifetime: int = number(default=1000, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        # While jax rebuilds a component from its leaves, parts may be anything.
        for tasks in (self.tasks, self.judged_on):
            if hasattr(tasks, "sample") and not hasattr(tasks, "num_tasks"):
                raise ValueError(f"trials: {type(tasks).__name__} has no end of tasks; choose a finite one")
        if hasattr(self.judged_on, "sample") and self.judged_on.environment != self.tasks.environment:
            raise ValueError("trials: judged_on has another world than tasks; they may differ in tasks alone")
        if hasattr(self.tasks, "sample"):
            _ = self.environment  # refuses factors that do not make up its states

    @property
    def environment(self) -> Trials:
        """Trials in the tasks' world."""
        return Trials(environment=self.tasks.environment, episodes=self.episodes, factors=self.factors)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    @property
    def num_tasks(self) -> int:
        """1: all tasks are in it."""
        return 1

    def sample(self, key: Array) -> Task:
        """The worlds of all tasks."""
        worlds = _worlds(self.tasks)
        judged_on = worlds if self.judged_on is None else _worlds(self.judged_on)
        lifetime = sample_lifetime(key, self.lifetime, self.shortest_lifetime)
        return agent_task(TrialParams(worlds, judged_on), lifetime)

    def sample_set(self, key: Array, count: int) -> Task:
        """The same ``count`` times."""
        return jax.vmap(self.sample)(jax.random.split(key, count))


def _worlds(tasks: Any) -> Any:
    """Parameters of every world, leaves ``[num_tasks, ...]``."""
    return tasks.sample_set(jax.random.key(0), tasks.num_tasks).params.env_params
