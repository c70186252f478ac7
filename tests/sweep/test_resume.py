"""Going on: a killed sweep ends with the numbers of an uninterrupted one, and what has changed is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metalab.errors import MetalabError
from metalab.spec import Pruner, SweepSpec
from metalab.sweep import engine
from metalab.sweep.context import Options
from metalab.sweep.guard import sweep_lock
from tests.sweep import toy
from tests.sweep.toy import assert_same_sweep, elsewhere, run, runs_of

RATES = {"outer.rate": "choice(0.05, 0.1)"}


class Killed(BaseException):
    """What a test raises in place of kill -9; the true one is in test_killed.py."""


def kill_after(chunks: int) -> Callable[[int], None]:
    def hook(done: int) -> None:
        if done == chunks:
            raise Killed

    return hook


STUDIES: dict[str, dict[str, Any]] = {
    "grid": {"search": {"outer.rate": "choice(0.02, 0.05, 0.1)", "outer.length": "choice(2, 4)"}},
    "pruned tpe": {
        "search": {"outer.rate": "tag(log, interval(0.001, 1.0))"},
        "sampler": "tpe",
        "points": 7,
        "batch": 2,
        "pruner": Pruner(kind="median", startup_points=2),
    },
    "cmaes": {
        "search": {"outer.rate": "tag(log, interval(0.01, 1.0))", "inner.start": "interval(0, 1)"},
        "sampler": "cmaes",
        "points": 9,
        "batch": 3,
    },
}


@pytest.mark.parametrize(
    ("name", "every_chunk"),
    [
        ("grid", False),
        pytest.param("pruned tpe", True, marks=pytest.mark.slow),
        pytest.param("cmaes", True, marks=pytest.mark.slow),
        pytest.param("grid", True, marks=pytest.mark.slow),
    ],
)
def test_a_killed_sweep_resumes_to_the_same_numbers(root: Path, name: str, every_chunk: bool) -> None:
    spec = toy.make_spec(base={"inner.noise": 0.1}, seeds=2, **STUDIES[name])
    whole = elsewhere(root, "whole")
    run(spec, whole, max_lanes=2, shrink="never")
    kills = 0
    while True:
        try:
            seconds = 0.0 if every_chunk else 1000.0
            hook = kill_after(1 if every_chunk else 4 + kills)
            result = run(spec, root, max_lanes=2, shrink="never", on_chunk=hook, checkpoint_seconds=seconds)
            break
        except Killed:
            kills += 1
    assert kills >= 3
    assert result.failed == 0
    assert_same_sweep(root, whole)
    assert not list(result.folder.glob("packs/*"))


def test_points_are_the_total_and_raising_them_goes_on(root: Path) -> None:
    options: dict[str, Any] = {"sampler": "random", "seeds": 1, "outer_steps": 2}
    search = {"outer.rate": "interval(0.01, 0.1)"}
    first = run(toy.make_spec(search=search, points=2, **options), root)
    chunks: list[int] = []
    again = run(toy.make_spec(search=search, points=2, **options), root, on_chunk=chunks.append)
    assert (again.finished, chunks) == (2, [])
    more = run(toy.make_spec(search=search, points=3, **options), root, on_chunk=chunks.append)
    assert (more.finished, chunks) == (3, [1])
    assert more.parent_run_id == first.parent_run_id
    assert len({one.data.params["settings.outer.rate"] for one in runs_of(root)}) == 3
    with pytest.raises(MetalabError, match="has 3 points, 2 were asked for"):
        run(toy.make_spec(search=search, points=2, **options), root)


def test_another_space_is_refused_in_words(root: Path) -> None:
    run(toy.make_spec(search=RATES, seeds=1), root)
    with pytest.raises(MetalabError, match=r"search: the space of sweep 'toy' has changed: .*outer.rate"):
        run(toy.make_spec(search={"outer.rate": "choice(0.05, 0.2)"}, seeds=1), root)
    assert len(runs_of(root)) == 2


def test_another_configuration_is_refused_or_accepted_and_recorded(root: Path) -> None:
    spec = toy.make_spec(search=RATES, seeds=1)
    with pytest.raises(Killed):
        run(spec, root, on_chunk=kill_after(2), checkpoint_seconds=0.0)
    changed = toy.make_spec(search=RATES, seeds=1, base={"inner.start": 0.5})
    with pytest.raises(
        MetalabError, match=r"begun with something else: base.inner.start null -> 0.5; .*--accept"
    ):
        run(changed, root)
    result = run(changed, root, accept_changes=True)
    assert result.finished == 2
    (parent,) = runs_of(root, "sweep")
    assert "base.inner.start null -> 0.5" in parent.data.tags["metalab.changes"]
    by_status: dict[str, list[Any]] = {}
    for one in runs_of(root):
        by_status.setdefault(one.data.tags["metalab.status"], []).append(one)
    assert len(by_status["FINISHED"]) == 2
    assert {one.data.params["settings.inner.start"] for one in by_status["FINISHED"]} == {"0.5"}
    assert len(by_status["SUPERSEDED"]) == 2  # begun with the old configuration


def test_other_code_is_refused_or_accepted_and_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = toy.make_spec(search=RATES, seeds=1)
    with pytest.raises(Killed):
        run(spec, root, on_chunk=kill_after(1), checkpoint_seconds=0.0)
    other = {"digest": "0" * 64, "versions": {"jax": "9.9"}, "git": {}}
    monkeypatch.setattr(engine.provenance, "code_version", lambda modules=(): other)
    with pytest.raises(MetalabError, match=r"code [0-9a-f]{8} -> 00000000 \(.*jax [\d.]+ -> 9.9"):
        run(spec, root)
    chunks: list[int] = []
    assert run(spec, root, accept_changes=True, on_chunk=chunks.append).finished == 2
    assert chunks == [1, 2]  # it goes on where it was
    assert "-> 9.9" in runs_of(root, "sweep")[0].data.tags["metalab.changes"]
    monkeypatch.undo()
    assert run(spec, root).finished == 2  # results may be looked at with any code


def test_another_number_of_devices_goes_on_from_the_same_state(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy.make_spec(search={"outer.rate": "choice(0.02, 0.05, 0.1)"}, seeds=1)
    with pytest.raises(Killed):
        run(spec, root, on_chunk=kill_after(2), checkpoint_seconds=0.0)
    commit = json.loads((root / "toy" / "commit.json").read_text())
    mesh = engine.Compiler().mesh
    one = type(mesh)(mesh.devices[:1], mesh.axis_names)
    monkeypatch.setattr("metalab.sweep.program.devices.lane_mesh", lambda: one)
    chunks: list[int] = []
    assert run(spec, root, on_chunk=chunks.append).finished == 3
    assert chunks == [1]
    assert commit["pack"]["width"] == -(-3 // mesh.size) * mesh.size


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_the_chunk_and_the_same_call_goes_on(root: Path, signum: int, code: int) -> None:
    spec = toy.make_spec(search=RATES, seeds=1)
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as stopped:
        run(spec, root, on_chunk=lambda _: os.kill(os.getpid(), signum))
    assert stopped.value.code == code
    assert signal.getsignal(signum) is before
    assert {one.info.status for one in runs_of(root)} == {"KILLED"}
    assert runs_of(root, "sweep")[0].info.status == "KILLED"
    chunks: list[int] = []
    assert run(spec, root, on_chunk=chunks.append).finished == 2
    assert chunks == [1, 2]
    assert {one.info.status for one in runs_of(root)} == {"FINISHED"}


def test_two_engines_on_one_sweep_are_refused(root: Path) -> None:
    (root / "toy").mkdir()
    with sweep_lock(root / "toy"), pytest.raises(MetalabError, match="another"):
        run(toy.make_spec(), root)


def test_fresh_starts_anew(root: Path) -> None:
    run(toy.make_spec(seeds=1), root)
    chunks: list[int] = []
    run(toy.make_spec(seeds=1), root, fresh=True, on_chunk=chunks.append)
    assert chunks == [1, 2, 3]
    assert len(runs_of(root)) == 1
    assert len(runs_of(root, "sweep")) == 1


def test_a_store_that_has_lost_the_runs_is_noticed(root: Path, empty_store: Path) -> None:
    run(toy.make_spec(seeds=1), root)
    shutil.copy(empty_store, root / "mlflow.db")
    with pytest.raises(MetalabError, match="whose runs are not in the store"):
        run(toy.make_spec(seeds=1), root)


def test_a_seed_count_is_part_of_the_question(root: Path) -> None:
    run(toy.make_spec(seeds=1), root)
    spec: SweepSpec = toy.make_spec(seeds=2)
    config = {**spec.config, "seeds": 2}
    with pytest.raises(MetalabError, match="seeds"):
        run(dataclasses.replace(spec, config=config), root)


def test_commits_take_a_hundredth_of_the_time_at_most() -> None:
    """15 seconds apart, or 100 times as long as the last took, 120 seconds at most; or what was asked for."""
    assert [Options().commit_interval(took) for took in (0.0, 0.1, 0.3, 5.0)] == [15.0, 15.0, 30.0, 120.0]
    assert Options(checkpoint_seconds=0.0).commit_interval(5.0) == 0.0
