import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.errors import MetalabError
from metalab.spec import EvaluationSet
from metalab.sweep import lives
from metalab.sweep.evaluation import (
    LaneSet,
    assessed_updates,
    evaluate_set,
    final_score,
    score_sets,
    scores_of,
)
from metalab.sweep.program import STREAMS, Compiler
from tests.sweep.toy import Parabola, Targets

SET = EvaluationSet(
    name="train", inner=Parabola(), tasks=Targets(), count=3, updates=4, stride=2, seed=1, threshold=-0.3
)


def test_returns_are_those_of_the_learner_by_hand() -> None:
    # rate r: |x - target| shrinks by (1 - r) an update; born at 0 the distance is |target|.
    rate = 0.25
    found = evaluate_set(SET.inner, SET, {"log_rate": jnp.log(rate)}, jax.random.key(0))["return"]
    keys = jax.random.split(jax.random.key(1), 3)
    targets = np.abs([Targets().sample(key).params for key in keys])
    np.testing.assert_allclose(found, -targets[:, None] * (1 - rate) ** np.array([0, 2, 4]), rtol=1e-5)


def test_tasks_do_not_depend_on_the_learners_key() -> None:
    meta = {"log_rate": jnp.log(0.1)}
    a, b = (evaluate_set(SET.inner, SET, meta, jax.random.key(seed))["return"] for seed in (0, 1))
    np.testing.assert_array_equal(a, b)  # this learner draws nothing


def test_a_learner_that_cannot_be_assessed_is_judged_by_its_own_score() -> None:
    class Blind:
        def __init__(self, inner: Parabola) -> None:
            self.init, self.step, self.evaluate = inner.init, inner.step, inner.evaluate

    found = evaluate_set(Blind(Parabola()), SET, {"log_rate": jnp.log(0.25)}, jax.random.key(0))  # pyright: ignore
    assert found["return"].shape == (3, 2)  # no assessment at birth
    assessed = evaluate_set(Parabola(), SET, {"log_rate": jnp.log(0.25)}, jax.random.key(0))["return"]
    np.testing.assert_allclose(found["return"], -0.5 * assessed[:, 1:] ** 2, rtol=1e-5)


def test_updates_must_be_whole_strides() -> None:
    with pytest.raises(MetalabError, match=r"'train': updates \(4\) must be a multiple of stride \(3\)"):
        assessed_updates(SET.inner, dataclasses.replace(SET, stride=3))


def test_scores_by_hand() -> None:
    steps = np.array([0, 10, 20, 30, 40])
    returns = np.array(
        [
            [0.0, 0.9, 0.2, 0.9, 1.0],  # falls below once: solved from 30
            [0.0, 0.1, 0.2, 0.3, 0.8],  # never: 40 + one stride
            [0.9, 0.9, 0.9, 0.9, 0.9],  # born able: from 0
        ]
    )
    scores = scores_of(returns, steps, 0.85)
    assert scores["steps_to_threshold"] == pytest.approx((30 + 50 + 0) / 3)
    assert scores["success"] == pytest.approx(2 / 3)
    assert scores["return"] == pytest.approx((2.1 / 3 + 1.3 / 3 + 0.9) / 3)
    assert scores["mean_return"] == pytest.approx((3.0 / 4 + 1.4 / 4 + 0.9) / 3)
    assert set(scores_of(returns, steps, None)) == {"return", "mean_return"}


def test_what_learners_report_beside_the_return_is_that_of_their_end() -> None:
    returns = np.zeros((2, 3, 4))
    regrets = np.arange(24.0).reshape(
        2, 3, 4
    )  # the last points of a seed's tasks are 3, 7, 11 and 15, 19, 23
    one = LaneSet.of([dataclasses.replace(SET, threshold=None)], 2, lambda tree: tree)
    found = score_sets({"train": one}, {"train": {"return": returns, "regret": regrets, "meta/a": returns}})
    assert set(found) == {"final/train/return", "final/train/mean_return", "final/train/regret"}
    np.testing.assert_array_equal(found["final/train/regret"], [7.0, 19.0])


def test_a_broken_learner_has_not_solved_its_task() -> None:
    returns = np.array([[0.9, np.nan, np.nan]])
    scores = scores_of(returns, np.array([0, 10, 20]), 0.5)
    assert scores["success"] == 0.0
    assert scores["steps_to_threshold"] == 30.0


def test_selection_and_report_agree_on_the_final_return() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    ages = np.array([0, 2, 4])
    chosen = float(final_score(jnp.asarray(returns), ages))
    assert chosen == pytest.approx(scores_of(returns, ages * 4, None)["return"], rel=1e-5)


def test_sets_share_a_program_and_meet_their_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lives, "BLOCK", {"cpu": 3})
    compiler, noisy = Compiler(), Parabola(noise=0.5)
    width = compiler.mesh.size
    meta = {"log_rate": jnp.full(width, jnp.log(0.25))}
    keys = jax.random.split(jax.random.key(5), width)
    for seed, count, updates in ((1, 3, 4), (2, 5, 8)):  # five tasks are a block of three and one of two
        where = dataclasses.replace(SET, inner=noisy, seed=seed, count=count, updates=updates)
        one = LaneSet.of([where], width, lambda tree: tree)
        found = one.run(compiler, meta, keys, "final")["return"]
        for lane in range(width):
            own = jax.random.fold_in(keys[lane], STREAMS["final"])
            alone = evaluate_set(where.inner, where, {"log_rate": jnp.log(0.25)}, own)["return"]
            np.testing.assert_allclose(found[lane], alone, rtol=1e-5)
    assert compiler.count("evaluate") == 1
