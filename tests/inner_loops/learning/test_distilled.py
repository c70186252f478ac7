"""A student of a small dark room's histories learns in context, on goals that it has never met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.transformer import TransformerAgent
from inner_loops.data.recorded import Recorded
from inner_loops.distillation import Distillation
from inner_loops.exploration import EpsilonGreedy
from inner_loops.q_learning import QLearning
from inner_loops.tasks.dark_rooms import DarkRooms
from metalab.components import as_arrays
from metalab.histories import Histories
from metalab.lifetimes import unroll
from metalab.optimizers import Adam
from outer_loops.meta_gradient import MetaGradient
from tests.history_toys import write_recording

SIZE, EPISODE, EPISODES, LIVES = 7, 15, 250, 12
TRAIN = DarkRooms(size=SIZE, horizon=EPISODE, held_out=9)
HELD_OUT = DarkRooms(size=SIZE, horizon=EPISODE, held_out=9, part="held_out")
UPDATES = 500


def recorded(folder: Path) -> Recorded:
    """Twelve lives of Q-learning on each of the 40 goals."""
    source: Any = as_arrays(
        QLearning(
            environment=TRAIN.environment,
            num_envs=1,
            rollout_length=EPISODE,
            learning_rate=0.9,
            discount=0.8,
            initial_spread=0.5,
            exploration=EpsilonGreedy(start=1.0, end=0.0, steps=0.8 * EPISODES * EPISODE),
        )
    )
    count = LIVES * TRAIN.num_tasks

    def live(task: Any, key: jax.Array) -> Any:
        return unroll(source, key, (), source.init(key, (), task), EPISODES)[1].record

    keys = jax.random.split(jax.random.key(1), count)
    record = jax.jit(jax.vmap(live))(TRAIN.sample_set(jax.random.key(0), count), keys)
    steps = EPISODES * EPISODE
    obs, action, reward = (
        np.asarray(leaf, np.int8).reshape(count, steps)
        for leaf in (record.obs[:, :, :-1], record.action, record.reward)
    )
    histories = Histories(
        obs=obs,
        action=action,
        reward=reward,
        start=np.broadcast_to(np.arange(steps) % EPISODE == 0, obs.shape),
        length=np.full(count, steps, np.int32),
        task=np.arange(count, dtype=np.int32) % TRAIN.num_tasks,
        seed=np.arange(count, dtype=np.int32) // TRAIN.num_tasks,
    )
    write_recording(folder, histories, num_actions=5, num_states=SIZE**2, horizon=EPISODE)
    return Recorded(path=str(folder), every=16)


@pytest.mark.slow
def test_a_student_learns_in_context_on_goals_that_it_has_never_met(tmp_path: Path) -> None:
    inner = Distillation(
        agent=TransformerAgent(width=32, heads=2, context=75, factors=(SIZE, SIZE), temperature=0.5),
        histories=recorded(tmp_path),
        environment=TRAIN.environment,
        rollout_length=EPISODE,
        window=75,
        batch_size=32,
    )
    optimizer = Adam(learning_rate=3e-3, warmup_steps=50.0, decay_steps=float(UPDATES), max_grad_norm=1.0)
    outer = as_arrays(MetaGradient(inner=inner, tasks=TRAIN, truncation=0, num_slots=1, optimizer=optimizer))

    def train(state: Any, key: jax.Array) -> Any:
        return outer.step(key, state, None)

    keys = jax.random.split(jax.random.key(0), UPDATES)
    state, metrics = jax.jit(lambda state: jax.lax.scan(train, state, keys))(outer.init(jax.random.key(2)))
    end = jax.tree.map(lambda leaf: float(jnp.mean(leaf[-50:])), metrics)
    assert end["inner/nll_last"] < end["inner/nll_first"] - 0.1  # the context tells something
    student, tasks = as_arrays(inner), HELD_OUT.sample_set(jax.random.key(3), 40)

    def live(task: Any, key: jax.Array) -> jax.Array:
        born = student.init(key, state.meta, task)

        def update(life: Any, key: jax.Array) -> Any:
            life, _ = student.step(key, state.meta, life, None)
            return life, student.assess(key, state.meta, life)["return"]

        return jax.lax.scan(update, born, jax.random.split(key, 40))[1]

    returns = np.asarray(jax.jit(jax.vmap(live))(tasks, jax.random.split(jax.random.key(4), 40))).mean(axis=0)
    best = float(jnp.mean(jax.vmap(HELD_OUT.environment.optimal_return)(tasks.params.env_params)))
    assert returns[:3].mean() < 0.4 * best
    assert returns[-10:].mean() > 0.8 * best
