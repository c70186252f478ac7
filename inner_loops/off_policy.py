"""Agents that learn from a replay: what DQN and D4PG share.

One inner update is a rollout of ``T`` steps in ``B`` environments, filed in a uniform replay, and ``G``
gradient steps, each on a minibatch of it. Until the replay holds ``warmup`` transitions the gradient steps
are computed and thrown away: on parallel lanes a branch would cost as much.

**Deviations** of both from their papers: acting and learning alternate in blocks instead of running side by
side. Discounts are applied when a transition is filed, so a discount that changes during life reaches old
transitions only as they are replaced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.classical import ClassicalAgent
from inner_loops.experience import (
    STORED,
    Experience,
    World,
    check_warmup,
    file_steps,
    new_world,
    no_experience,
)
from inner_loops.n_step import Step, Transition
from metalab.components import component, number, part, static
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite, select

__all__ = ["OffPolicyAgent", "OffPolicyState"]


class OffPolicyState(NamedTuple):
    """One lifetime.

    Attributes:
        learner: what gradient steps change; it has ``params``.
        experience: the replay.
        world: the environments.
    """

    learner: Any
    experience: Experience
    world: World


@component
class OffPolicyAgent(ClassicalAgent):
    """Acting, filing and learning; subclasses say how they act and what a gradient step is."""

    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    num_envs: int = static(8, doc="B, parallel environments of one agent", at_least=1)
    rollout_length: int = static(8, doc="T, environment steps of one rollout", at_least=1)
    gradient_steps: int = static(8, doc="G, minibatches of one inner update", at_least=1)
    batch_size: int = static(64, doc="transitions of a minibatch", at_least=1)
    capacity: int = static(16_384, doc="transitions in the replay, a multiple of T * B", at_least=1)
    warmup: int = number(1_000, doc="transitions in the replay before the first gradient step", at_least=1)
    n_step: int = static(1, doc="n, steps of a transition", at_least=1)
    stored: str = static(
        "float32", doc="how observations are kept; uint8 for whole numbers from 0 to 255 only", choices=STORED
    )
    discount: float = number(0.99, doc="gamma", at_least=0.0, at_most=1.0)

    def __post_init__(self) -> None:
        check_warmup(self.warmup, self.capacity)

    def init(self, key: Array, meta: PyTree, task: Task) -> OffPolicyState:
        """A newborn agent; ``task.params`` is an ``AgentTask``.

        Raises:
            ValueError: the tasks set hyperparameters of their own, or actions are of the other kind.
        """
        del meta
        self.check_task(task)
        learner_key, env_key = jax.random.split(key)
        learner = self._init_learner(learner_key)
        world = self._new_world(env_key, task.params.env_params)
        experience = no_experience(
            world.obs[0],
            self._no_action(),
            self.num_envs,
            self.capacity,
            self.n_step,
            self.stored,
            self.environment.num_costs,
        )
        return OffPolicyState(learner, experience, world)

    def step(
        self, key: Array, meta: PyTree, state: OffPolicyState, batch: PyTree
    ) -> tuple[OffPolicyState, StepOut]:
        """One rollout and ``G`` gradient steps."""
        del meta, batch
        return self._lived(key, state)

    def step_if(
        self, alive: Array, key: Array, meta: PyTree, state: OffPolicyState, batch: PyTree
    ) -> tuple[OffPolicyState, StepOut]:
        """See ``Gated``: the replay, the bulk of the state, is chosen by the rows that are new."""
        del meta, batch
        after, out = self._lived(key, state, alive)
        learner, world = select(alive, (after.learner, after.world), (state.learner, state.world))
        return OffPolicyState(learner, after.experience, world), out

    def evaluate(
        self, key: Array, meta: PyTree, state: OffPolicyState, outs: StepOut, batch: PyTree
    ) -> tuple[OffPolicyState, Evaluation]:
        """The score of the last episodes; there is no outer loss."""
        del key, meta, batch
        learned = jnp.maximum(jnp.sum(outs.metrics["learning"]), 1.0)
        metrics = {"loss": jnp.sum(outs.metrics["loss"]) / learned, **self._metrics(state)}
        broken = ~all_finite(state.learner.params)
        return state, Evaluation(None, state.world.episodes.score, metrics, broken=broken)

    def assess(self, key: Array, meta: PyTree, state: OffPolicyState) -> dict[str, Array]:
        """``return``: the mean score of the environments' last episodes."""
        del key, meta
        return {"return": state.world.episodes.score}

    def _lived(
        self, key: Array, state: OffPolicyState, counts: Array | None = None
    ) -> tuple[OffPolicyState, StepOut]:
        """The state after one inner update, its experience as it was where the update does not count."""
        act_key, learn_key = jax.random.split(key)
        world, steps = self._act(act_key, state)
        experience = file_steps(state.experience, steps, self.discount, counts)
        state = state._replace(world=world, experience=experience)
        state = state._replace(learner=self._watched(act_key, state, steps))
        learner, loss, ready = self._learn(learn_key, state)
        metrics = {"reward": jnp.mean(steps.reward), "loss": loss, "learning": ready.astype(loss.dtype)}
        record = self._recorded(world, steps)
        return state._replace(learner=learner), StepOut(metrics=metrics, record=record)

    # What a subclass says.

    def _init_learner(self, key: Array) -> Any:
        """A newborn learner."""
        raise NotImplementedError

    def _new_world(self, key: Array, params: PyTree) -> World:
        """The environments at birth."""
        return new_world(self.environment, key, params, self.num_envs)

    def _no_action(self) -> Array:
        """An action as it is filed, for its shape and dtype."""
        raise NotImplementedError

    def _act(self, key: Array, state: OffPolicyState) -> tuple[World, Step]:
        """A rollout."""
        raise NotImplementedError

    def _watched(self, key: Array, state: OffPolicyState, steps: Step) -> Any:
        """The learner after it saw a rollout (leaves ``[T, B, ...]``) of its own, before it learns."""
        del key, steps
        return state.learner

    def _recorded(self, world: World, steps: Step) -> Any:
        """What an observer may keep of a rollout (leaves ``[T, B, ...]``)."""
        del world, steps
        return None

    @property
    def _rows(self) -> int:
        """Transitions that a gradient step draws."""
        return self.batch_size

    def _gradient_step(self, learner: Any, minibatch: Transition, world: World) -> tuple[Any, Array]:
        """The learner after one minibatch, and its loss []."""
        raise NotImplementedError

    def _metrics(self, state: OffPolicyState) -> dict[str, Array]:
        """More of an evaluation, scalars."""
        del state
        return {}

    def _ready(self, state: OffPolicyState) -> Array:
        return state.experience.replay.size >= self.warmup

    def _learn(self, key: Array, state: OffPolicyState) -> tuple[Any, Array, Array]:
        """``G`` gradient steps: the learner, its mean loss, and whether they counted."""
        ready = self._ready(state)

        def update(learner: Any, minibatch: Transition) -> tuple[Any, Array]:
            return self._gradient_step(learner, minibatch, state.world)

        minibatches = state.experience.replay.sample(key, (self.gradient_steps, self._rows))
        learner, losses = jax.lax.scan(update, state.learner, minibatches)
        return select(ready, learner, state.learner), jnp.where(ready, jnp.mean(losses), 0.0), ready
