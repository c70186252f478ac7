"""Demonstrations: what a student has heard before its own life begins.

A demonstrator lives in the student's world for some updates, and the student hears all of it as if it had
lived it itself: context that is not empty at birth (Laskin et al. 2022, arXiv:2210.14215, prompt it with
demonstrations of a policy that is not the best one). Its own life begins with a new episode.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.in_context import InContext, LifeState
from inner_loops.trajectory import Trajectory
from metalab.components import component, part, static
from metalab.lifetimes import unroll
from metalab.protocols import InnerLoop, PyTree, Task

__all__ = ["Demonstration"]


@component
class Demonstration:
    """What a demonstrator without meta-parameters does in the student's world, heard before birth."""

    by: InnerLoop = part(doc="who demonstrates", group="inner")
    updates: int = static(1, doc="inner updates that it lives", at_least=1)
    heard: int = static(1, doc="of them that the student hears, from the end", at_least=1)

    def __post_init__(self) -> None:
        if self.heard > self.updates:
            raise ValueError(f"demonstration: heard={self.heard} is more than its updates={self.updates}")

    def told(self, key: Array, life: InContext, meta: PyTree, born: LifeState, task: Task) -> LifeState:
        """The newborn once it has heard the demonstration.

        Args:
            key: the demonstrator's.
            life: that the student is born into.
            meta: the student's parameters.
            born: the newborn.
            task: that both live on.
        """
        steps = self._shown(key, life.environment, task)
        mask = life.environment.action_mask(born.env_params)

        def hear(state: LifeState, step: Trajectory) -> tuple[LifeState, None]:
            percept = life.percept(step.obs, state.action, state.reward, state.done, mask)
            memory, _ = life.agent.step(meta, state.memory, percept)
            after = state._replace(
                memory=memory,
                action=step.action.astype(jnp.int32),
                reward=step.reward.astype(jnp.float32),
                done=step.terminated | step.truncated,
            )
            return after, None

        told, _ = jax.lax.scan(hear, born, steps)
        return told._replace(done=jnp.ones((), bool))

    def _shown(self, key: Array, environment: Any, task: Task) -> Trajectory:
        """Steps of the demonstrator's first environment, leaves ``[steps, ...]``."""
        by: Any = self.by
        if by.environment is None:
            by = dataclasses.replace(by, environment=environment)
        meta_key, birth_key, live_key = jax.random.split(key, 3)
        meta = by.init_meta(meta_key)
        _, outs = unroll(by, live_key, meta, by.init(birth_key, meta, task), self.updates)
        record = outs.record._replace(obs=outs.record.obs[:, :-1], action_mask=None)
        late = jax.tree.map(lambda leaf: leaf[-self.heard :, :, 0], record)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), late)
