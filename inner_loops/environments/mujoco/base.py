"""What the bodies share: a model, actuators driven from -1 to 1, and a beginning near the model's own pose.

The state is the model's positions, then its speeds. An action is held for ``substeps`` steps of the model.
Nothing else is carried on: under every action the solver of contacts begins anew, without its last forces.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.control.base import ControlEnvironment
from inner_loops.environments.mujoco.simulation import loaded, simulated
from metalab.components import component

__all__ = ["MujocoEnvironment"]


@component
class MujocoEnvironment(ControlEnvironment):
    """A simulated body; subclasses name its model and say what is seen of it and what is paid."""

    model: ClassVar[str]
    substeps: ClassVar[int]
    # Leading positions that every episode begins with as they are: where the body stands.
    roots: ClassVar[int] = 0
    # The others begin within so many radians or metres of the model's pose.
    spread: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        loaded(self.model)

    @property
    def action_size(self) -> int | None:
        """One entry for each actuator."""
        return loaded(self.model).nu

    def action_bounds(self, params: Any) -> tuple[Array, Array]:
        """-1 and 1, of an actuator's largest force or torque, or the angle in radians that it drives to."""
        del params
        most = jnp.ones(loaded(self.model).nu)
        return -most, most

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """See the module of the body."""
        model = loaded(self.model)
        return jax.eval_shape(self._observe, jax.ShapeDtypeStruct((model.nq + model.nv,), jnp.float32)).shape

    def _begin(self, key: Array, params: Any) -> Array:
        del params
        model = loaded(self.model)
        noise = jax.random.uniform(key, (model.nq - self.roots,), minval=-self.spread, maxval=self.spread)
        qpos = jnp.asarray(model.qpos0, jnp.float32).at[self.roots :].add(noise)
        return jnp.concatenate([qpos, jnp.zeros(model.nv, jnp.float32)])

    def _move(self, physics: Array, action: Array, params: Any) -> tuple[Array, Array]:
        physics = simulated(self.model, physics, jnp.clip(action, -1.0, 1.0), self.substeps)
        return physics, self._pay(physics, params)

    def _pay(self, physics: Array, params: Any) -> Array:
        """[] from 0 to 1, of the state that a step leads to."""
        raise NotImplementedError

    def _split(self, physics: Array) -> tuple[Array, Array]:
        """Positions [nq] and speeds [nv]."""
        nq = loaded(self.model).nq
        return physics[:nq], physics[nq:]
