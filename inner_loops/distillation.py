"""Algorithm Distillation: a student is taught to continue learning histories, and then learns in context.

Laskin et al. 2022 (arXiv:2210.14215). The outer loss is the next-action negative log-likelihood on crops of
recorded histories of many tasks, over all steps of a crop,

    L(theta) = - sum_t log P_theta(a_t | o_t, h_{t-1}),

without returns to go, without a value and without a filter: what the student can learn from is that later
episodes of a history are better ones. ``outer: {kind: meta_gradient, truncation: 0, num_slots: 1}`` minimises
it. Deployed, it lives like any agent that learns in context (``inner_loops.in_context``): the weights are
frozen, the memory is empty at birth and goes on across episodes.

Tasks that it is tested on must not be among those of the recording: the source of the histories says of which
part of the tasks it has to be.

**Deviations**: see the student (``inner_loops.agents.transformer``); the share of crops that begin where a
history does is given (``at_start``) instead of following from the draw.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inner_loops.agents.base import InContextAgent, Percept, logits_along
from inner_loops.agents.transformer import TransformerAgent
from inner_loops.data.recorded import Crops, HistorySource, Recorded, draw_crops, draw_crops_on_host
from inner_loops.in_context import InContext, LifeState
from inner_loops.prompts import Demonstration
from metalab.components import component, number, part, static
from metalab.errors import MetalabError
from metalab.histories import Histories
from metalab.protocols import Evaluation, PyTree, StepOut, Task

__all__ = ["Distillation"]

_ON_DEVICE = 2**28  # bytes of histories that lie in the program; of more, the host draws the crops
_MARGIN = 20  # steps at a crop's beginning and end whose likelihoods show what the context is worth


@component
class Distillation:
    """Student that is taught to continue recorded learning histories (Laskin et al. 2022)."""

    judged_at_birth: ClassVar[bool] = True

    agent: InContextAgent = part(TransformerAgent(), doc="the student", group="agent")
    histories: HistorySource = part(Recorded(), doc="what it is taught from", group="histories")
    environment: Any = part(None, doc="the world; that of the tasks unless given", group="environment")
    rollout_length: int = static(20, doc="T, environment steps of one inner update", at_least=1)
    batch_size: int = static(64, doc="N, crops of an outer step", at_least=1)
    window: int = static(100, doc="W, steps of a crop", at_least=2)
    at_start: float = number(
        0.1, doc="share of the crops that begin where a history does", at_least=0.0, at_most=1.0
    )

    demonstration: Demonstration | None = part(
        None, doc="what it has heard before its life; null: nothing", group="demonstration"
    )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one inner update, T."""
        return self.rollout_length

    def init_meta(self, key: Array) -> PyTree:
        """The student's parameters."""
        return self._life.init_meta(key)

    def init(self, key: Array, meta: PyTree, task: Task) -> LifeState:
        """A newborn student, its context empty but for a demonstration; ``task.params``: ``AgentTask``."""
        if self.demonstration is None:
            return self._life.init(key, meta, task)
        birth_key, demonstration_key = jax.random.split(key)
        born = self._life.init(birth_key, meta, task)
        return self.demonstration.told(demonstration_key, self._life, meta, born, task)

    def step(self, key: Array, meta: PyTree, state: LifeState, batch: PyTree) -> tuple[LifeState, StepOut]:
        """``T`` steps of perceiving, acting and being paid."""
        del batch
        return self._life.step(key, meta, state, None)

    def evaluate(
        self, key: Array, meta: PyTree, state: LifeState, outs: StepOut, batch: PyTree
    ) -> tuple[LifeState, Evaluation]:
        """The likelihood of recorded actions; the score is that of the life, or minus the loss at birth."""
        crop_key, read_key, life_key = jax.random.split(key, 3)
        if batch is None:
            crops = draw_crops(crop_key, self._histories(), self.batch_size, self.window, self.at_start)
        else:
            crops = jax.tree.map(lambda leaf: leaf[-1], batch)
        loss, metrics = self.likelihood(read_key, meta, crops)
        if jax.tree.leaves(outs.aux)[0].shape[0] == 0:  # nothing was lived
            return state, Evaluation(loss=loss, score=-loss, metrics=metrics)
        state, lived = self._life.evaluate(life_key, meta, state, outs, None)
        return state, lived._replace(loss=loss, metrics=metrics | lived.metrics)

    def assess(self, key: Array, meta: PyTree, state: LifeState) -> dict[str, Array]:
        """``return`` of an episode in the last update, and the world's tallies since birth."""
        return self._life.assess(key, meta, state)

    def host_batches(self, rng: np.random.Generator, length: int) -> PyTree:
        """See ``HostFed``: crops, where the histories are too many to lie in the program."""
        histories = self._histories()
        if sum(array.nbytes for array in histories) <= _ON_DEVICE:
            return None
        drawn = [
            draw_crops_on_host(rng, histories, self.batch_size, self.window, float(self.at_start))
            for _ in range(length)
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)

    def likelihood(self, key: Array, meta: PyTree, crops: Crops) -> tuple[Array, dict[str, Array]]:
        """Mean negative log-likelihood of the source's actions in nats, and what tells of the context.

        Args:
            key: of the students' memories.
            meta: the student's parameters.
            crops: what the source did.

        Returns:
            The loss, and metrics: ``nll_first`` and ``nll_last``, of the first and the last 20 steps of a
            crop (their difference is what the context is worth), and ``accuracy``, the share of steps at
            which the likeliest action is the source's.
        """
        percepts = jax.vmap(jax.vmap(self._percept))(crops)
        logits = logits_along(self.agent, key, meta, percepts)
        log_probs = jax.nn.log_softmax(logits)
        taken = crops.action[..., None] == jnp.arange(logits.shape[-1])
        nll = -jnp.sum(jnp.where(taken, log_probs, 0.0), axis=-1)
        right = jnp.argmax(logits, axis=-1) == crops.action
        margin = min(_MARGIN, self.window // 2)
        metrics = {
            "nll_first": _mean(nll[:, :margin], crops.counted[:, :margin]),
            "nll_last": _mean(nll[:, -margin:], crops.counted[:, -margin:]),
            "accuracy": _mean(right, crops.counted),
        }
        return _mean(nll, crops.counted), jax.lax.stop_gradient(metrics)

    @property
    def _life(self) -> InContext:
        return InContext(
            agent=self.agent,
            environment=self.environment,
            rollout_length=self.rollout_length,
            score="episode",
        )

    def _percept(self, step: Crops) -> Percept:
        """What the student is told at one step of a crop."""
        mask = jnp.ones(self.environment.num_actions, bool)
        reward, action = step.reward.astype(jnp.float32), step.before.astype(jnp.int32)
        return self._life.percept(step.obs, action, reward, step.done, mask)

    def _histories(self) -> Histories:
        """What it is taught from, which must be of a world like the student's.

        Raises:
            MetalabError: they are not, or none of them is as long as a crop.
        """
        manifest, histories, world = self.histories.manifest(), self.histories.load(), self.environment
        recorded = (list(manifest.observation_shape), manifest.num_actions)
        lives = (list(world.observation_shape), world.num_actions)
        if recorded != lives:
            raise MetalabError(
                f"histories: {manifest.name} has observations of shape {recorded[0]} and {recorded[1]} "
                f"actions, the student's world {lives[0]} and {lives[1]}"
            )
        states = getattr(self.histories, "modulo", None) or manifest.num_states
        if states != world.num_states:
            raise MetalabError(
                f"histories: {manifest.name} has {states} states, the student's world {world.num_states}; "
                "histories.modulo keeps the part of a state that the student is to see"
            )
        if self.window > histories.length.max():
            raise MetalabError(
                f"window={self.window} is more than the {histories.length.max()} steps of the longest "
                "history; lower it, or histories.every"
            )
        return histories


def _mean(values: Array, counted: Array) -> Array:
    """[] over what is counted."""
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)
