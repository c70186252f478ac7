"""One gymnax environment as a task distribution: lifetimes differ by their seeds only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["GymnaxTasks", "with_params"]


@component
class GymnaxTasks:
    """A gymnax environment with its own or other parameters; lifetimes differ by their seeds."""

    name: str = static(default="CartPole-v1", doc="as gymnax registers it, for example Catch-bsuite")
    env_params: Mapping | None = number(
        default=None, doc="its parameters by name that are not as gymnax has them, {memory_length: 20}"
    )
    lifetime: int = number(default=1000, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        # While jax rebuilds a component from its leaves, fields may be anything.
        given = self.env_params if isinstance(self.env_params, Mapping) else {}
        for name, value in given.items():
            if isinstance(value, str):
                raise ValueError(f"env_params.{name}: expected a number or a list of them, got {value!r}")

    @property
    def environment(self) -> GymnaxEnvironment:
        """The environment of that name."""
        return GymnaxEnvironment(name=self.name)

    @property
    def num_kinds(self) -> int:
        """1."""
        return 1

    def sample(self, key: Array) -> Task:
        """The environment's parameters.

        Raises:
            ValueError: it has no parameter of a name in ``env_params``, or one of another shape or type.
        """
        params = with_params(self.environment.default_params(), self.env_params or {}, self.name)
        return agent_task(params, sample_lifetime(key, self.lifetime, self.shortest_lifetime))

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` times the same world."""
        return jax.vmap(self.sample)(jax.random.split(key, count))


def with_params(params: Any, changes: Mapping[str, Any], name: str) -> Any:
    """Parameters of a gymnax environment with other values for some of them, in their own types.

    Args:
        params: a dataclass of arrays.
        changes: parameter to value; may be tracers, so that worlds that differ in them share one program.
        name: of the environment, for the errors.

    Raises:
        ValueError: there is no such parameter, or it has another shape, or is a whole number.
    """
    known = [field.name for field in dataclasses.fields(params)]
    changed = {}
    for key, value in changes.items():
        if key not in known:
            raise ValueError(f"gymnax: {name!r} has no parameter {key!r}; known: {', '.join(known)}")
        old, new = getattr(params, key), jnp.asarray(value)
        if new.shape != old.shape:
            raise ValueError(
                f"gymnax: parameter {key!r} of {name!r} has shape {old.shape}, got {new.shape}: {value!r}"
            )
        if jnp.issubdtype(old.dtype, jnp.integer) and not jnp.issubdtype(new.dtype, jnp.integer):
            raise ValueError(f"gymnax: parameter {key!r} of {name!r} is a whole number, got {value!r}")
        changed[key] = new.astype(old.dtype)
    return dataclasses.replace(params, **changed)
