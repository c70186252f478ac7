"""Baselines of a toy sweep: tuned, untrained, newborn; and meta-parameters on tasks of their own."""

import dataclasses
import shutil
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from inner_loops.tasks.delayed_chains import DelayedChains
from metalab.spec import Baseline, EvaluationSet
from metalab.sweep.baselines import _batches, _outcome
from metalab.sweep.lives import set_tasks
from metalab.tracking import Store
from tests.sweep import toy

BASELINES = (
    Baseline(
        "tuned",
        {"search": {"inner.noise": "choice(9.0, 0.0, 3.0)"}, "sampler": "grid", "selection": "mean_return"},
    ),
    Baseline("untrained", {}),
    Baseline("random", {}),
    Baseline("optimal", {}),
    Baseline("floor", {}),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Store:
    root = tmp_path_factory.mktemp("baselines")
    shutil.copy(empty_store, root / "mlflow.db")
    spec = toy.make_spec(seeds=2, outer_steps=2, baselines=BASELINES)
    alone = {**spec.evaluation.sets["train"], "points": False}
    sets = {**spec.evaluation.sets, "alone": alone}
    spec = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, sets=sets))
    assert toy.run(spec, root).failed == 0
    steps: list[int] = []
    again = toy.run(spec, root, on_chunk=steps.append)
    assert steps == []
    assert not again.compilations  # finished baselines and points stay as they are
    return Store(root, "toy")


def found(store: Store) -> dict:
    runs = store.client.search_runs([store.experiment_id], "tags.`metalab.kind` = 'baseline'")
    return {run.data.tags["metalab.name"]: run for run in runs}


def test_every_baseline_is_a_finished_run_under_the_sweep(store: Store) -> None:
    runs = found(store)
    assert set(runs) == {"tuned", "untrained", "random", "optimal", "floor"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parents = store.client.search_runs([store.experiment_id], "tags.`metalab.kind` = 'sweep'")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parents[0].info.run_id}


def test_a_set_without_points_is_met_by_learners_of_their_own_alone(store: Store) -> None:
    points = store.client.search_runs([store.experiment_id], "tags.`metalab.kind` = 'point'")
    runs = {"point": points[0], **found(store)}
    met = {name for name, run in runs.items() if "final/alone/return" in run.data.metrics}
    assert met == {"tuned"}


def test_tuning_picks_the_best_setting_and_keeps_what_it_tried(store: Store) -> None:
    run = found(store)["tuned"]
    settings = pd.read_parquet(store.client.download_artifacts(run.info.run_id, "settings.parquet"))
    assert settings["inner.noise"].tolist() == [9.0, 0.0, 3.0]
    assert int(settings["score"].argmax()) == 1
    assert run.data.params["chosen.inner.noise"] == "0.0"
    # Without noise the chosen learner is the untrained one, which is not among the points of `alone`.
    shared = {name: value for name, value in run.data.metrics.items() if "/alone/" not in name}
    assert shared == found(store)["untrained"].data.metrics


def test_the_newborn_is_as_far_off_as_its_targets(store: Store) -> None:
    drawn = set_tasks(toy.Targets(), 3, 1).params
    expected = -float(np.abs(jax.device_get(drawn)).mean())
    metrics = found(store)["random"].data.metrics
    assert metrics["final/train/return"] == pytest.approx(expected, rel=1e-5)
    assert "final/train/steps_to_threshold" not in metrics


def test_a_world_without_an_optimum_is_left_out(store: Store) -> None:
    assert found(store)["optimal"].data.metrics == {}


def outcome_of(name: str, inner: Any, tasks: Any) -> tuple[Any, list[str]]:
    where = EvaluationSet("train", inner, tasks, count=3, updates=4, stride=1, seed=1, threshold=0.9)
    said: list[str] = []
    progress = types.SimpleNamespace(say=said.append)
    context: Any = types.SimpleNamespace(
        evaluation_sets=lambda point: {"train": where},
        progress=progress,
        spec=types.SimpleNamespace(seeds=2),
    )
    nothing: Any = None
    return _outcome(context, nothing, Baseline(name, {})), said


def test_the_floor_is_the_mean_over_the_sets_tasks() -> None:
    inner = types.SimpleNamespace(num_envs=16, rollout_length=20)
    outcome, said = outcome_of("floor", inner, DelayedChains(lengths=(40, 50)))
    # 960 steps for a chain of 40, 3520 for one of 50; three tasks: 40, 50, 40.
    assert outcome.lines == {"final/train/steps_to_threshold": pytest.approx((960 + 3520 + 960) / 3)}
    assert said == []


@pytest.mark.parametrize("tasks", [toy.Targets(), DelayedChains()])
def test_a_set_without_a_floor_is_left_out_in_words(tasks: Any) -> None:
    outcome, said = outcome_of("floor", toy.Parabola(), tasks)  # a learner without environments
    assert outcome.lines == {}
    assert said == ["baseline floor: nothing is known of the tasks of set train; left out"]


def test_a_world_that_does_not_know_its_optimum_is_not_asked_for_it() -> None:
    class Unknown(toy.Targets):
        @property
        def environment(self) -> Any:
            def refuse(params: Any) -> Any:
                raise ValueError("no optimum is known")

            return types.SimpleNamespace(optimum_known=False, optimal_return=refuse)

    outcome, said = outcome_of("optimal", toy.Parabola(), Unknown())
    assert outcome.curves == {}
    assert said == ["baseline optimal: set train has no exact optimum; left out"]


def test_batches_have_one_width() -> None:
    sizes = [(len(batch), width) for batch, width in _batches(range(50), 3, 2, 64)]
    assert sizes == [(21, 64), (21, 64), (8, 64)]  # 64 // 3 = 21 settings of 3 seeds: 63 lanes, padded to 64
