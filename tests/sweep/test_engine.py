"""The engine on a toy: one program for many points, what a run carries, failures, the sweep's own run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.frames import load_sweep
from metalab import provenance
from metalab.errors import ConfigError, MetalabError
from metalab.spec import SweepSpec
from metalab.sweep.engine import Builders, Options, run_sweep
from metalab.tracking import client_of
from tests.sweep import toy
from tests.sweep.toy import run, runs_of, table

RATES = {"outer.rate": "choice(0.05, 0.1)"}


def test_eight_points_that_differ_in_numbers_compile_one_program(root: Path) -> None:
    search = {"outer.rate": "choice(0.01, 0.02, 0.05, 0.1)", "inner.start": "choice(0.0, 0.5)"}
    result = run(toy.make_spec(search=search, seeds=1, outer_steps=4), root)
    assert (result.finished, result.failed) == (8, 0)
    assert result.compilations["chunk"] == 1
    assert result.compilations["evaluate"] == 1  # selection and final evaluation share it
    assert len(runs_of(root)) == 8


def test_a_static_difference_makes_a_second_program(root: Path) -> None:
    result = run(toy.make_spec(search={"outer.length": "choice(2, 4)"}, seeds=1, outer_steps=2), root)
    assert result.compilations["chunk"] == 2
    hardware = json.loads((result.folder / "hardware.json").read_text())
    assert hardware["programs"] == 2
    assert hardware["command"] == provenance.command()
    assert hardware["compile_s"] > 0


def test_a_run_carries_what_reports_read(root: Path) -> None:
    result = run(toy.make_spec(search=RATES, seeds=3, held_out=True), root)
    parent, first = runs_of(root, "sweep")[0], runs_of(root)[0]
    assert parent.info.run_id == result.parent_run_id
    assert parent.info.status == first.info.status == "FINISHED"
    assert first.data.tags["mlflow.parentRunId"] == result.parent_run_id
    assert json.loads(first.data.tags["metalab.searched"]) == ["outer.rate"]
    assert first.data.params["settings.outer.rate"] == "0.05"
    metrics = first.data.metrics
    for key in ("evaluation/train/return", "final/wide/return"):
        assert metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"]
    assert 0.0 <= metrics["final/train/success"] <= 1.0
    assert "final/wide/success" not in metrics  # it has no threshold
    series = table(root, first, "series.parquet")
    assert set(series.seed) == {0, 1, 2}
    loss = series[series.metric == "train/loss"]
    assert len(loss) == 3 * 6
    assert sorted(set(loss["step"])) == [1, 2, 3, 4, 5, 6]
    last = loss.loc[loss.step > 4, "value"].mean()  # a chunk's point is the mean over the chunk and the seeds
    assert metrics["train/loss"] == pytest.approx(last)
    curves = table(root, first, "evaluation.parquet")
    assert list(curves.columns) == [
        "seed",
        "set",
        "task",
        "outer_step",
        "update",
        "env_steps",
        "metric",
        "value",
    ]
    train = curves[curves.set == "train"]
    assert sorted(set(train["update"])) == [0, 2, 4, 6, 8]
    assert train["env_steps"].tolist() == (4 * train["update"]).tolist()


def test_a_seed_draws_the_same_in_every_point_and_pack(root: Path) -> None:
    run(toy.make_spec(search=RATES, seeds=2), root)
    alone = root / "alone"
    alone.mkdir()
    shutil.copy(root / "mlflow.db", alone / "mlflow.db")
    run(toy.make_spec(search=RATES, seeds=2), alone, max_lanes=1)
    for together, single in zip(runs_of(root), runs_of(alone), strict=True):
        a, b = (table(where, one, "series.parquet") for where, one in ((root, together), (alone, single)))
        np.testing.assert_allclose(a.value, b.value, rtol=1e-4)


def test_the_sweeps_own_run_carries_the_aggregates(root: Path) -> None:
    result = run(toy.make_spec(search={"outer.rate": "choice(0.01, 0.05, 0.1)"}, seeds=1), root)
    values = [one.data.metrics["objective"] for one in runs_of(root)]
    client = client_of(root)
    told = client.get_metric_history(result.parent_run_id, "sweep/objective")
    assert {point.step: point.value for point in told} == dict(enumerate(values))
    best = client.get_metric_history(result.parent_run_id, "sweep/best")
    running = [max(values[: n + 1]) for n in range(3)]
    assert [point.value for point in sorted(best, key=lambda point: point.step)] == running
    assert runs_of(root, "sweep")[0].data.metrics["sweep/ended"] == 3


def test_curves_in_the_store_are_thinned_and_series_are_whole(root: Path) -> None:
    run(toy.make_spec(seeds=1, outer_steps=1000, chunk=2, every=1000), root)
    (one,) = runs_of(root)
    history = client_of(root).get_metric_history(one.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == [*list(range(6, 1000, 6)), 1000]
    series = table(root, one, "series.parquet")
    assert (series.metric == "train/loss").sum() == 1000


def test_a_program_that_cannot_be_compiled_fails_alone_with_its_reason(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.Descent.step

    def step(self: Any, key: Any, state: Any, data: Any) -> Any:
        if self.length == 3:
            raise RuntimeError("no such length")
        return original(self, key, state, data)

    monkeypatch.setattr(toy.Descent, "step", step)
    spec = toy.make_spec(search={"outer.length": "choice(3, 4)"}, seeds=1, outer_steps=2)
    result = run(spec, root)
    assert (result.finished, result.failed) == (1, 1)
    assert [(one.who, one.status, one.reason) for one in result.endings] == [
        ("point 0", "failed", "RuntimeError: no such length")
    ]
    failed, finished = runs_of(root)
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["metalab.error"] == "RuntimeError: no such length"
    assert runs_of(root, "sweep")[0].info.status == "FINISHED"  # a part of it has
    monkeypatch.undo()
    assert run(spec, root).failed == 1  # a failed point is not run again unasked
    result = run(spec, root, retry=True)
    assert (result.finished, result.failed) == (2, 0)


def test_a_point_that_cannot_be_built_fails_alone_by_name(root: Path) -> None:
    def point_maker(spec: SweepSpec) -> Any:
        def make_point(number: int, values: Any) -> Any:
            if number == 1:
                raise ConfigError("outer.rate", "0.1 does not go with this length")
            return toy.make_point(spec, number, values)

        return make_point

    builders = Builders(point_maker, toy.evaluation_sets, toy.baseline_sets)
    spec = toy.make_spec(search={"outer.rate": "choice(0.05, 0.1, 0.2)"}, seeds=1)
    result = run_sweep(spec, root, Options(progress=False), builders=builders)
    assert (result.finished, result.failed) == (2, 1)
    assert "does not go with this length" in result.endings[0].reason
    assert [one.info.status for one in runs_of(root)] == ["FINISHED", "FAILED", "FINISHED"]


def test_an_objective_that_is_not_logged_is_refused_with_what_is(root: Path) -> None:
    spec = toy.make_spec(select=None)
    study = toy.dataclasses.replace(spec.study, objectives=("train/reward",))
    with pytest.raises(MetalabError, match=r"'train/reward' is not logged .* known: train/loss, train/score"):
        run(toy.dataclasses.replace(spec, study=study), root)


def test_a_point_run_alone_leaves_the_sweeps_points_to_the_sweep(root: Path) -> None:
    alone = run(toy.make_spec(seeds=1, outer_steps=2), root, single=True)
    whole = run(toy.make_spec(seeds=1, outer_steps=2), root)
    again = run(toy.make_spec(seeds=1, outer_steps=2), root, single=True)
    assert again.parent_run_id == alone.parent_run_id != whole.parent_run_id
    assert len(runs_of(root)) == 2
    tags = {one.info.run_id: one.data.tags["metalab.single"] for one in runs_of(root, "sweep")}
    assert tags == {alone.parent_run_id: "true", whole.parent_run_id: "false"}
    assert load_sweep(root, "toy").parent_id == whole.parent_run_id
    other = run(toy.make_spec(seeds=1, outer_steps=2, base={"outer.rate": 0.2}), root, single=True)
    assert other.parent_run_id not in tags  # another configuration is another run
