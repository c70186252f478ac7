"""The engine on a toy: one program for many points, resumption, divergence, failures, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.frames import load_sweep
from metalab import provenance
from metalab.errors import MetalabError
from metalab.spec import SweepSpec
from metalab.sweep.engine import SweepResult, run_sweep
from metalab.sweep.guard import sweep_lock
from metalab.tracking import Store, client_of
from tests.sweep import toy

RATES = {"outer.rate": "choice(0.05, 0.1)"}


def run(spec: SweepSpec, root: Path, **options: Any) -> SweepResult:
    return run_sweep(spec, root, builders=toy.BUILDERS, progress=False, **options)


def runs_of(root: Path, kind: str = "point") -> list[Any]:
    store = Store(root, "toy")
    found = store.client.search_runs([store.experiment_id], f"tags.`metalab.kind` = '{kind}'")
    return sorted(found, key=lambda run: int(run.data.tags.get("metalab.number", 0)))


def table(root: Path, run: Any, name: str) -> pd.DataFrame:
    return pd.read_parquet(client_of(root).download_artifacts(run.info.run_id, name))


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
    for key in ("train/loss", "evaluation/train/return", "final/wide/return"):
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
    run(toy.make_spec(search=RATES, seeds=2), alone, resume=False, max_lanes=1)
    for together, single in zip(runs_of(root), runs_of(alone), strict=True):
        a, b = (table(where, one, "series.parquet") for where, one in ((root, together), (alone, single)))
        np.testing.assert_allclose(a.value, b.value, rtol=1e-4)


class Killed(BaseException):
    """What a test raises in place of kill -9: nothing may clean up after it."""


def kill_at(step: int) -> Callable[[int], None]:
    def hook(done: int) -> None:
        if done == step:
            raise Killed

    return hook


@pytest.mark.parametrize("checkpoint_seconds", [0.0, pytest.param(1000.0, marks=pytest.mark.slow)])
def test_a_killed_sweep_resumes_to_the_same_numbers(root: Path, checkpoint_seconds: float) -> None:
    spec = toy.make_spec(search=RATES, base={"inner.noise": 0.1})
    whole = root / "whole"
    whole.mkdir()
    shutil.copy(root / "mlflow.db", whole / "mlflow.db")
    run(spec, whole)
    with pytest.raises(Killed):
        run(spec, root, on_chunk=kill_at(4), checkpoint_seconds=checkpoint_seconds)
    assert {one.info.status for one in runs_of(root)} == {"RUNNING"}
    steps: list[int] = []
    result = run(spec, root, on_chunk=steps.append)
    assert steps == ([6] if checkpoint_seconds == 0.0 else [2, 4, 6])
    assert result.finished == 2
    assert len(runs_of(root)) == 2
    for resumed, straight in zip(runs_of(root), runs_of(whole), strict=True):
        for name in ("series.parquet", "evaluation.parquet"):
            pd.testing.assert_frame_equal(table(root, resumed, name), table(whole, straight, name))
        assert resumed.data.metrics == straight.data.metrics
        for key in resumed.data.metrics:
            history = client_of(root).get_metric_history(resumed.info.run_id, key)
            assert len({point.step for point in history}) == len(history), f"{key} has doubled points"
    assert not list(result.folder.glob("packs/*"))


def test_finished_points_are_not_run_again_and_a_wider_grid_adds_to_them(root: Path) -> None:
    run(toy.make_spec(search=RATES, seeds=1), root)
    steps: list[int] = []
    again = run(toy.make_spec(search=RATES, seeds=1), root, on_chunk=steps.append)
    assert steps == []
    assert again.finished == 2
    wider = run(toy.make_spec(search={"outer.rate": "choice(0.05, 0.1, 0.2)"}, seeds=1), root)
    assert wider.finished == 3
    assert wider.parent_run_id == again.parent_run_id
    assert len(runs_of(root)) == 3


def test_a_diverged_lane_is_tagged_and_leaves_the_others_alone(root: Path) -> None:
    spec = toy.make_spec(search={"outer.break_at": "choice(-1, 2)"}, seeds=2)
    result = run(spec, root)
    healthy, broken = runs_of(root)
    assert result.finished == 2
    assert healthy.data.tags["metalab.diverged"] == "null"
    assert json.loads(broken.data.tags["metalab.diverged"]) == {"0": 3, "1": 3}  # steps count from 1
    series = table(root, healthy, "series.parquet")
    assert np.isfinite(series.value).all()
    # What was kept before it broke is what is evaluated.
    assert np.isfinite(broken.data.metrics["final/train/return"])


def test_a_failing_pack_does_not_stop_the_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = toy.Descent.step

    def step(self: Any, key: Any, state: Any, data: Any) -> Any:
        if self.length == 3:
            raise RuntimeError("no such length")
        return original(self, key, state, data)

    monkeypatch.setattr(toy.Descent, "step", step)
    spec = toy.make_spec(search={"outer.length": "choice(3, 4)"}, seeds=1, outer_steps=2)
    result = run(spec, root)
    assert (result.finished, result.failed) == (1, 1)
    failed, finished = runs_of(root)
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["metalab.error"] == "RuntimeError: no such length"
    assert runs_of(root, "sweep")[0].info.status == "FAILED"
    monkeypatch.undo()
    assert run(spec, root).finished == 2


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_stops_at_the_chunk_and_the_same_call_goes_on(root: Path, signum: int, code: int) -> None:
    spec = toy.make_spec(search=RATES, seeds=1)
    before = signal.getsignal(signum)

    def hook(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signum)

    with pytest.raises(SystemExit) as stopped:
        run(spec, root, on_chunk=hook)
    assert stopped.value.code == code
    assert signal.getsignal(signum) is before
    assert {one.info.status for one in runs_of(root)} == {"KILLED"}
    assert runs_of(root, "sweep")[0].info.status == "KILLED"
    assert run(spec, root).finished == 2


def test_a_point_run_alone_leaves_the_sweeps_points_to_the_sweep(root: Path) -> None:
    alone = run(toy.make_spec(seeds=1, outer_steps=2), root, single=True)
    whole = run(toy.make_spec(seeds=1, outer_steps=2), root)
    again = run(toy.make_spec(seeds=1, outer_steps=2), root, single=True)
    assert again.parent_run_id == alone.parent_run_id != whole.parent_run_id
    (point,) = runs_of(root)
    assert point.data.tags["mlflow.parentRunId"] == whole.parent_run_id
    tags = {one.info.run_id: one.data.tags["metalab.single"] for one in runs_of(root, "sweep")}
    assert tags == {alone.parent_run_id: "true", whole.parent_run_id: "false"}
    assert load_sweep(root, "toy").parent_id == whole.parent_run_id


def test_two_engines_on_one_sweep_are_refused(root: Path) -> None:
    (root / "toy").mkdir()
    with sweep_lock(root / "toy"), pytest.raises(MetalabError, match="another metalab runs this sweep"):
        run(toy.make_spec(), root)


def test_resume_false_starts_anew(root: Path) -> None:
    run(toy.make_spec(seeds=1), root)
    steps: list[int] = []
    run(toy.make_spec(seeds=1), root, resume=False, on_chunk=steps.append)
    assert steps == [2, 4, 6]
    assert len(runs_of(root)) == 1


@pytest.mark.slow
def test_sampled_points_run_in_batches_and_resume_to_the_same_points(root: Path) -> None:
    options: dict[str, Any] = {"sampler": "tpe", "points": 4, "batch": 2, "seeds": 1, "outer_steps": 2}
    spec = toy.make_spec(search={"outer.rate": "tag(log, interval(0.01, 1.0))"}, **options)
    whole = root / "whole"
    whole.mkdir()
    shutil.copy(root / "mlflow.db", whole / "mlflow.db")
    assert run(spec, whole).finished == 4
    calls = 0

    def kill_in_second_batch(step: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed

    with pytest.raises(Killed):
        run(spec, root, on_chunk=kill_in_second_batch)
    result = run(spec, root)
    assert result.finished == 4
    rates = [[one.data.params["settings.outer.rate"] for one in runs_of(where)] for where in (whole, root)]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 4
