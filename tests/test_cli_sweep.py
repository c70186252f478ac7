"""The commands on a real sweep, one after another, as a person would call them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.frames import load_sweep
from metalab.cli import main
from metalab.config import load, make_point
from tests.config_toys import write

SETS = {"train": {"count": 2, "updates": 3, "seed": 1}, "far": {"count": 2, "updates": 3, "seed": 2}}
SWEEP = {
    "description": "How much of the way at once?",
    # A learner that overshoots by 30 orders of magnitude leaves the finite numbers at once.
    "search": {"inner.gain": "choice(0.1, 0.5, 1e30)"},
    "study": {"objective": "evaluation/train/return", "over_seeds": "mean"},
    "seeds": 2,
    "evaluation": {"every": 2, "sets": SETS},
    "baselines": {"untrained": {}},
    "report": ["cost"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with a sweep file and a store."""
    made = tmp_path_factory.mktemp("commands")
    (made / "runs").mkdir()
    shutil.copy(empty_database, made / "runs" / "mlflow.db")
    write(made, **SWEEP)
    return made


def called(folder: Path, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[str, str]:
    """What a command that succeeds prints, and what it says beside it."""
    assert main([*command, "--root", str(folder / "runs")]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The code that computes, as far as the engine can tell; changing the digest changes it."""
    known = {"digest": "0123456789"}
    monkeypatch.setattr(
        "metalab.provenance.code_version", lambda modules=(): {**known, "versions": {}, "git": {}}
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return known


def test_a_sweep_and_all_that_can_be_asked_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str], code: dict[str, str]
) -> None:
    runs, file = folder / "runs", str(folder / "toy.yaml")
    out, _ = called(folder, capsys, "sweep", file, "--checkpoint-seconds", "0")
    assert "points:       2 finished, 0 pruned, 1 diverged, 0 failed" in out
    assert "not finite in every seed by step 1" in out
    page = runs / "toy" / "report" / "report.html"
    assert f"Report:       {page}" in out
    assert "3 points: 2 finished, 1 diverged; 2 seeds each; 1 baseline" in page.read_text()

    out, _ = called(folder, capsys, "status", "toy")
    assert "toy: ended" in out
    assert "3 of 3 ended: 2 finished, 1 diverged" in out
    assert "at inner.gain=0.5" in out
    assert "baselines  1 of 1" in out
    assert "records    all delivered" in out

    # The best point is a sweep file of its own, the same point to the last digit.
    called(folder, capsys, "best", "toy", "--output", str(folder / "best.yaml"))
    alone = load(folder / "best.yaml")
    assert alone.name == "toy-best"
    assert make_point(alone, 0, {}).digest == make_point(load(file), 1, {"inner.gain": 0.5}).digest
    assert "points:       1 finished" in called(folder, capsys, "run", str(folder / "best.yaml"))[0]

    # Nothing is left to do; a diverged point can be run again, by other code if that is accepted.
    code["digest"] = "9876543210"
    assert main(["sweep", file, "--retry", "--root", str(runs)]) == 2
    assert "--accept-changes" in capsys.readouterr().err
    out, said = called(folder, capsys, "sweep", file, "--retry", "--accept-changes")
    assert "goes on with toy: 3 of 3 points have ended before" in said
    assert "points:       2 finished, 0 pruned, 1 diverged, 0 failed" in out
    data = load_sweep(runs, "toy")
    assert (len(data.rows("point")), data.superseded) == (3, 1)
    assert "code 01234567 -&gt; 98765432 (sources)" in page.read_text()
    assert "changes    1 accepted" in called(folder, capsys, "status", "toy")[0]

    out, _ = called(folder, capsys, "export", "toy", "--format", "csv", "--to", str(folder / "out"))
    assert [line.split()[1:] for line in out.splitlines()][:2] == [["3", "rows"], ["1", "rows"]]
    points: Any = pd.read_csv(folder / "out" / "points.csv")
    assert list(points["status"]) == ["finished", "finished", "diverged"]

    suite = folder / "other.yaml"
    suite.write_text(yaml.safe_dump({"count": 2, "updates": 4, "tasks": {"kind": "tests.toys:Targets"}}))
    best: Any = points.sort_values("objective", ascending=False)
    out, _ = called(folder, capsys, "evaluate", best["run_id"].iloc[0], "--tasks", str(suite))
    assert out.splitlines()[0].split() == ["run", "suite", "metric", "mean", "low", "high", "seeds"]
    history = load_sweep(runs, "toy").runs.set_index("run_id")
    assert pd.notna(history.loc[best["run_id"].iloc[0], "final/other/untrained_return"])
    assert "other" in Path(called(folder, capsys, "report", "toy")[0].strip()).read_text()
    by_id, by_name = (
        called(folder, capsys, "evaluate", run, "--tasks", str(suite))[0]
        for run in (points["run_id"].iloc[0], "toy-0000")
    )
    assert by_name == by_id


def test_a_point_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = called(folder, capsys, "run", str(folder / "toy.yaml"), "name=alone", "inner.gain=0.25")
    assert "points:       1 finished, 0 pruned, 0 diverged, 0 failed" in out
    (single,) = (folder / "runs" / "alone").iterdir()
    out, _ = called(folder, capsys, "status", f"alone/{single.name}")
    assert f"alone/{single.name}: ended" in out
    assert "1 of 1 ended" in out


def test_a_sweep_of_which_every_point_diverges_has_failed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(folder / "toy.yaml"), "name=lost", "search.inner.gain=choice(1e30, 2e30)"]
    assert main([*command, "--root", str(folder / "runs")]) == 1
    assert "points:       0 finished, 0 pruned, 2 diverged, 0 failed" in capsys.readouterr().out
