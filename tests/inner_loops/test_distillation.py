"""Distillation: its loss by hand, its gradient without any life, and who may move it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.bandits import ThompsonSampling, Uniform
from inner_loops.agents.transformer import TransformerAgent
from inner_loops.data.recorded import Recorded, draw_crops
from inner_loops.distillation import Distillation
from inner_loops.environments.bernoulli_bandit import BernoulliBandit
from inner_loops.in_context import InContext
from inner_loops.prompts import Demonstration
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits
from metalab.components import as_arrays
from metalab.contracts import ContractError, check_inner, check_outer
from metalab.errors import MetalabError
from metalab.optimizers import Sgd
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.fixed import Fixed
from outer_loops.meta_gradient import MetaGradient
from tests.history_toys import ACTIONS, random_histories, write_recording

BANDITS = BernoulliBandits(arms=(ACTIONS,), lifetime=2)
STUDENT = TransformerAgent(width=8, layers=1, heads=2, context=4)


@pytest.fixture
def recording(tmp_path: Path) -> Recorded:
    """Twelve pulls each of four bandits, at random."""
    histories = random_histories()
    ones = np.ones((*histories.obs.shape, 1), np.float32)
    write_recording(tmp_path, histories._replace(obs=ones), num_states=None)
    return Recorded(path=str(tmp_path))


def learner(recording: Recorded, **changes) -> Distillation:
    fields = {"agent": STUDENT, "rollout_length": 3, "batch_size": 5, "window": 6, **changes}
    return Distillation(histories=recording, environment=BANDITS.environment, **fields)


def drawn_meta(inner: Distillation):
    """A student whose head says something."""
    meta = inner.init_meta(jax.random.key(0))
    return meta._replace(head=jax.random.normal(jax.random.key(1), meta.head.shape))


def test_a_newborns_loss_is_the_log_of_the_number_of_actions(recording):
    inner = learner(recording)
    crops = draw_crops(jax.random.key(2), recording.load(), 5, 6, 0.1)
    loss, metrics = inner.likelihood(jax.random.key(0), inner.init_meta(jax.random.key(0)), crops)
    for value in (loss, metrics["nll_first"], metrics["nll_last"]):
        np.testing.assert_allclose(value, np.log(ACTIONS), rtol=1e-6)


def test_steps_that_a_short_history_lacks_are_not_counted(recording):
    inner = learner(recording)
    meta = drawn_meta(inner)
    crops = draw_crops(jax.random.key(2), recording.load(), 5, 6, 0.1)
    short = crops._replace(counted=crops.counted.at[:, 4:].set(False))
    alone = jax.tree.map(lambda leaf: leaf[:, :4], crops)
    key = jax.random.key(0)
    np.testing.assert_allclose(
        inner.likelihood(key, meta, short)[0],
        dataclasses.replace(inner, window=4).likelihood(key, meta, alone)[0],
        rtol=1e-6,
    )


def test_without_a_life_the_gradient_is_that_of_the_likelihood(recording):
    """One outer step of gradient descent at rate 1 moves the parameters by minus the gradient."""
    with jax.enable_x64(True):
        inner = learner(recording)
        outer = as_arrays(
            MetaGradient(
                inner=inner, tasks=BANDITS, truncation=0, num_slots=1, optimizer=Sgd(learning_rate=1.0)
            )
        )
        key = jax.random.key(3)
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), drawn_meta(inner))
        state = outer.init(key)._replace(meta=wide)
        moved, metrics = jax.jit(outer.step)(key, state, None)
        taken = jax.tree.map(lambda a, b: np.asarray(a - b), state.meta, moved.meta)
        # the keys that the outer loop gives to the judgement of its only lifetime
        judged = jax.random.split(jax.random.split(jax.random.split(key)[1], 1)[0])[1]
        crop_key, read_key, _ = jax.random.split(judged, 3)
        crops = draw_crops(crop_key, recording.load(), 5, 6, inner.at_start)
        loss = jax.jit(lambda meta: inner.likelihood(read_key, meta, crops)[0])
        for a, b in zip(*map(jax.tree.leaves, (taken, jax.grad(loss)(state.meta))), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
        np.testing.assert_allclose(metrics["loss"], loss(state.meta), rtol=1e-9)
        direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), state.meta)
        ahead, behind = (
            loss(jax.tree.map(lambda m, d, e=e: m + e * d, state.meta, direction)) for e in (1e-5, -1e-5)
        )
        along = sum(np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (taken, direction)), strict=True))
        np.testing.assert_allclose(along, (ahead - behind) / 2e-5, rtol=1e-6)


def test_the_host_draws_where_histories_are_many(recording, monkeypatch):
    inner = learner(recording)
    outer = MetaGradient(inner=inner, tasks=BANDITS, truncation=0, num_slots=2)
    assert outer.host_batches(np.random.default_rng(0)) is None
    monkeypatch.setattr("inner_loops.distillation._ON_DEVICE", 0)
    drawn = outer.host_batches(np.random.default_rng(0))
    assert drawn.action.shape == (2, 1, 5, 6)
    state, metrics = jax.eval_shape(
        outer.step, jax.random.key(0), jax.eval_shape(outer.init, jax.random.key(0)), drawn
    )
    assert metrics["loss"].shape == () and state.slots.age.shape == (2,)


def test_what_moves_a_student(recording):
    inner = learner(recording)
    check_inner(inner, BANDITS)
    check_outer(MetaGradient(inner=inner, tasks=BANDITS, truncation=0, num_slots=1))
    check_outer(EvolutionStrategy(inner=inner, tasks=BANDITS, population=2, max_lifetime=2))
    check_outer(Fixed(inner=inner, tasks=BANDITS, num_slots=1, truncation=1))
    taught = learner(recording, agent=ThompsonSampling())
    with pytest.raises(ContractError, match="no meta-parameters"):
        check_outer(MetaGradient(inner=taught, tasks=BANDITS, truncation=0, num_slots=1))
    unlived = MetaGradient(inner=InContext(environment=BANDITS.environment), tasks=BANDITS, truncation=0)
    with pytest.raises(ContractError, match="InContext is judged by what its updates led to: truncation=0"):
        check_outer(unlived)


def test_a_life_is_scored_by_its_episodes(recording):
    """Of bandits an episode is a pull: the mean payout probability of the last update's."""
    inner = learner(recording)
    meta = inner.init_meta(jax.random.key(0))
    state = inner.init(jax.random.key(1), meta, BANDITS.sample(jax.random.key(2)))
    state, out = inner.step(jax.random.key(3), meta, state, None)
    pulled = np.asarray(out.record.action).reshape(-1)
    chances = np.asarray(state.env_params.probability)[pulled]
    np.testing.assert_allclose(
        inner.assess(jax.random.key(0), meta, state)["return"], chances.mean(), rtol=1e-6
    )


def test_a_demonstration_is_heard_before_birth(recording):
    """Two updates of three pulls of a uniform choice, of which the last three are heard."""
    demonstrator = InContext(agent=Uniform(), rollout_length=3)
    inner = learner(recording, demonstration=Demonstration(by=demonstrator, updates=2, heard=1))
    meta, task = inner.init_meta(jax.random.key(0)), BANDITS.sample(jax.random.key(2))
    state = inner.init(jax.random.key(1), meta, task)
    assert int(state.memory.length) == 3  # steps that were kept
    assert int(state.life.steps) == 0  # nothing was lived
    assert bool(state.done)
    assert 0 <= int(state.action) < ACTIONS
    unprompted = dataclasses.replace(inner, demonstration=None).init(jax.random.key(1), meta, task)
    assert jax.tree.structure(state) == jax.tree.structure(unprompted)
    with pytest.raises(ValueError, match="heard=3 is more than its updates=2"):
        Demonstration(by=demonstrator, updates=2, heard=3)


@pytest.mark.parametrize(
    ("changes", "of_manifest", "message"),
    [
        ({"window": 13}, {}, "window=13 is more than the 12 steps of the longest history"),
        ({"environment": BernoulliBandit(max_arms=2)}, {}, r"3 actions, the student's world \[1\] and 2"),
        ({}, {"num_states": 81}, "has 81 states, the student's world None"),
    ],
)
def test_histories_of_another_world_are_refused(tmp_path, changes, of_manifest, message):
    histories = random_histories()
    ones = np.ones((*histories.obs.shape, 1), np.float32)
    write_recording(tmp_path, histories._replace(obs=ones), **{"num_states": None, **of_manifest})
    inner = dataclasses.replace(learner(Recorded(path=str(tmp_path))), **changes)
    with pytest.raises(MetalabError, match=message):
        inner.host_batches(np.random.default_rng(0), 1)
