"""The command line: what it prints, what it calls, what it leaves alone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalab.cli import main
from metalab.commands.shared import aligned
from metalab.config import load
from metalab.sweep.context import Options
from metalab.sweep.scheduler import Ending
from tests.config_toys import write
from tests.sweep.folders import beat, commit, open_study, settings

HEAVY = ("jax", "gymnax", "mlflow", "hydra", "optuna", "pandas")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["sweep", "--help"], ["status", "--help"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom metalab.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert end.code == 0\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_module_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "metalab", "list", "sweeps"], capture_output=True, text=True, check=True
    )
    assert "quickstart" in done.stdout


def test_list_says_one_line_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "inner:" in lines
    assert any(line.split()[:1] == ["meta_gradient"] and "Meta-gradient" in line for line in lines)
    assert any(line.split()[:1] == ["adam"] and line.count("arXiv:1412.6980") == 1 for line in lines)
    assert any(line.split()[:1] == ["lpg"] and "arXiv:2007.08794" in line for line in lines)
    assert main(["list", "optimizer"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["adam", "sgd"]


def test_list_of_an_unknown_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "iner"]) == 2
    assert "unknown group 'iner'; did you mean 'inner'?" in capsys.readouterr().err


def test_plan_prints_programs_and_creates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"}, seeds=3)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["plan", str(path), "outer.truncation=3"]) == 0
    out = capsys.readouterr().out
    assert "toy: 2 points, 3 seeds, 1 program" in out
    assert "2 points, 2 at once x 3 seeds = 6 lanes" in out
    assert sorted(tmp_path.iterdir()) == before


def test_plan_asks_xla_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "plan",
                str(write(tmp_path, outer={"kind": "fixed", "truncation": 2, "num_slots": 2})),
                "--compile",
            ]
        )
        == 0
    )
    assert "of temporaries" in capsys.readouterr().out


@dataclasses.dataclass
class Calls:
    """What the commands handed on, and how the engine says that the sweep ended."""

    sweeps: list[tuple[Any, Path, Options]]
    reports: list[tuple[Path, str]]
    finished: int = 1
    endings: Sequence[Ending] = ()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """An engine and a report that only remember how they were called."""
    made = Calls([], [])

    def run_sweep(spec: Any, root: Path, options: Options) -> Any:
        made.sweeps.append((spec, root, options))
        return types.SimpleNamespace(
            finished=made.finished, endings=made.endings, folder=root / spec.name, parent_run_id="r"
        )

    def write_report(root: Path, name: str) -> Path:
        made.reports.append((root, name))
        return root / name / "report" / "index.html"

    engine: Any = types.ModuleType("metalab.sweep.engine")
    engine.run_sweep, engine.Options = run_sweep, Options
    report: Any = types.ModuleType("analysis.report")
    report.write_report = write_report
    monkeypatch.setitem(sys.modules, "metalab.sweep.engine", engine)
    monkeypatch.setitem(sys.modules, "analysis.report", report)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


def test_sweep_hands_all_points_on_and_says_where_the_results_are(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, search={"inner.gain": "choice(0.1, 0.2, 0.3)"})
    root = tmp_path / "runs"
    command = ["sweep", str(path), "--root", str(root), "--max-lanes", "2", "--fresh", "seeds=2"]
    assert main(command) == 0
    ((spec, where, options),) = calls.sweeps
    assert where == root
    assert options == Options(fresh=True, max_lanes=2)
    assert (spec.name, spec.seeds) == ("toy", 2)
    assert calls.reports == [(root, "toy")]
    out = capsys.readouterr().out
    assert "points:       1 finished, 0 pruned, 0 diverged, 0 failed" in out
    assert str(root / "mlflow.db") in out
    assert str(root / "toy" / "report" / "index.html") in out


def test_run_is_one_point_without_a_report(tmp_path: Path, calls: Calls) -> None:
    path = write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"}, smoke={"seeds": 4})
    assert main(["run", str(path), "--root", str(tmp_path / "runs"), "--smoke"]) == 0
    ((spec, _, options),) = calls.sweeps
    assert options == Options(single=True, quick=True)
    assert (spec.name, spec.seeds) == ("toy-smoke", 4)
    assert calls.reports == []


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_how_a_sweep_goes_on_is_handed_on(command: str, tmp_path: Path, calls: Calls) -> None:
    asked = ["--accept-changes", "--retry", "--checkpoint-seconds", "2.5"]
    assert main([command, str(write(tmp_path)), "--root", str(tmp_path / "runs"), *asked]) == 0
    (_, _, options) = calls.sweeps[0]
    assert (options.accept_changes, options.retry, options.checkpoint_seconds) == (True, True, 2.5)


@pytest.mark.parametrize(("finished", "code"), [(0, 1), (1, 0)])
def test_only_a_sweep_of_which_nothing_finished_has_failed(
    finished: int, code: int, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.finished = finished
    calls.endings = [
        Ending("point 1", "failed", 0, "ValueError: " + "very " * 40 + "long"),
        Ending("point 2", "diverged", 20, "not finite in every seed by step 12"),
        Ending("baseline a2c", "failed", 0, "no memory"),
    ]
    command = ["sweep", str(write(tmp_path)), "--no-report", "--root", str(tmp_path / "runs")]
    assert main(command) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"points:       {finished} finished, 0 pruned, 1 diverged, 1 failed"
    assert [line.split()[0] for line in lines[1:5]] == ["who", "point", "point", "baseline"]
    assert lines[2].endswith("very long")  # in a pipe nothing is cut
    assert lines[3].split(maxsplit=4) == [
        "point",
        "2",
        "diverged",
        "20",
        "not finite in every seed by step 12",
    ]
    assert lines[5] == f"every reason in full: {tmp_path / 'runs' / 'toy' / 'hardware.json'}"
    assert calls.reports == []


def test_pruned_points_are_counted_and_not_listed(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.finished = 3  # with those that were pruned
    calls.endings = [Ending(f"point {n}", "pruned", 4, "by median at step 4") for n in (1, 2)]
    assert main(["sweep", str(write(tmp_path)), "--no-report", "--root", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "points:       1 finished, 2 pruned, 0 diverged, 0 failed"
    assert lines[1].startswith("MLflow store:")


def test_a_terminal_gets_what_fits_it(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.endings = [Ending(f"point {n}", "failed", 0, "so it is " * 20) for n in range(30)]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["sweep", str(write(tmp_path)), "--no-report", "--root", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("point ")]
    assert len(rows) == 20
    assert all(len(row) <= 60 and row.endswith("...") for row in rows)
    assert any(line.startswith("and 10 more; every reason in full") for line in lines)


def test_a_sweep_that_goes_on_says_so(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ended(tmp_path)
    path = write(tmp_path, search=SEARCH)
    assert main(["sweep", str(path), "--no-report", "--root", str(root)]) == 0
    assert "goes on with toy: 2 of 3 points have ended before" in capsys.readouterr().err
    assert main(["sweep", str(path), "--no-report", "--root", str(root), "--fresh"]) == 0
    assert "goes on" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--checkpoint-seconds", "-1"], "expected seconds, 0 (after every chunk) or more; got '-1'"),
        (["--checkpoint-seconds", "nan"], "expected seconds"),
        (["--max-lanes", "0"], "expected a whole number at least 1, got '0'"),
        (["--retri"], "unrecognized arguments: --retri"),
    ],
)
def test_options_that_cannot_be(
    option: list[str], said: str, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sweep", str(write(tmp_path)), *option])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert calls.sweeps == []


SEARCH = {"inner.gain": "choice(0.1, 0.2, 0.3)"}


def ended(folder: Path, **changes: Any) -> Path:
    """A root with the sweep ``toy`` of three points, of which one finished and one failed."""
    root = folder / "runs"
    spec = load(write(folder, search=SEARCH))
    study = open_study(root / "toy", settings("grid", None), SEARCH)
    for _ in range(2):
        study.ask()
    study.end(0, "finished", [0.123456789], steps=4)
    study.end(1, "failed", None, reason="no memory")
    commit(root / "toy", study, search=SEARCH, config=spec.config, outer_steps=4, seeds=1, **changes)
    (root / "toy" / "composed.yaml").write_text(yaml.safe_dump(dict(spec.raw), sort_keys=False))
    return root


def test_status_of_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ended(tmp_path, steps_per_s=0.5)
    assert main(["status", "toy", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "toy: stopped; `metalab sweep FILE` goes on" in out
    assert "2 of 3 ended: 1 finished, 1 failed, 1 waiting" in out
    assert "point 0: train/score = 0.123457 at inner.gain=0.1" in out
    # One point of four outer steps and one seed at half a lane step a second.
    assert "0.5 lane steps/s, 8 s left for the points" in out
    assert f"folder     {root / 'toy'}" in out
    beat(root / "toy", host="elsewhere", pid=7, age=2.0)
    main(["status", "toy", "--root", str(root)])
    assert "toy: running (pid 7 on elsewhere, last sign of life 2 s ago)" in capsys.readouterr().out
    beat(root / "toy", host="elsewhere", pid=7, age=7200.0)
    main(["status", "toy", "--root", str(root)])
    assert "toy: interrupted (pid 7 on elsewhere, last sign of life 2 h 0 min ago)" in capsys.readouterr().out


def test_status_of_all_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(tmp_path / "runs")]) == 0
    assert "no sweep has run in" in capsys.readouterr().out
    root = ended(tmp_path)
    (root / "broken").mkdir()
    (root / "broken" / "sweep.json").write_text("{")
    assert main(["status", "--root", str(root)]) == 0
    captured = capsys.readouterr()
    rows = [line.split("  ") for line in captured.out.splitlines()]
    assert [row[0] for row in rows] == ["sweep", "toy"]
    assert "2 of 3" in captured.out
    assert "0.1235 at point 0" in captured.out
    assert captured.err.startswith("broken: ")


def test_status_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ended(tmp_path)
    assert main(["status", "toy", "--json", "--root", str(root)]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["name"], one["state"], one["counts"]["failed"]) == ("toy", "stopped", 1)
    assert one["best"] == [{"number": 0, "objective": [0.123456789], "values": {"inner.gain": 0.1}}]
    assert main(["status", "--json", "--root", str(root)]) == 0
    assert json.loads(capsys.readouterr().out) == [one]


@pytest.mark.parametrize("command", [["status"], ["best"], ["export"], ["report"]])
def test_a_sweep_that_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ended(tmp_path)
    assert main([*command, "toi", "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    # The folder tells of a sweep without a store; what reads the store says that there is none.
    assert ("did you mean 'toy'?" in error) == (command[0] in ("status", "best"))


def test_best_is_a_sweep_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ended(tmp_path)
    assert main(["best", "toy", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["name"] == "toy-best"
    path = tmp_path / "best.yaml"
    assert main(["best", "toy", "--root", str(root), "--output", str(path)]) == 0
    assert path.read_text() == printed
    assert capsys.readouterr().out == f"{path}\n"
    assert load(path).config["inner"]["gain"] == 0.1
    assert main(["best", "toy", "--root", str(root), "--point", "1"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["inner"]["gain"] == 0.2
    assert main(["best", "toy", "--root", str(root), "--output", str(tmp_path)]) == 2
    assert "--output: " in capsys.readouterr().err


def test_best_lists_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, asked = tmp_path / "runs", {"objective": ["train/score", "train/loss"]}
    spec = load(write(tmp_path, search=SEARCH, study=asked))
    study = open_study(root / "toy", spec.study, SEARCH)
    for number, reached in enumerate([[1.0, 2.0], [2.0, 1.0]]):
        study.ask()
        study.end(number, "finished", reached, steps=4)
    commit(root / "toy", study, search=SEARCH, config=spec.config)
    assert main(["best", "toy", "--root", str(root)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["point", "train/score", "train/loss", "inner.gain"],
        ["1", "2", "1", "0.2"],
        ["0", "1", "2", "0.1"],
    ]
    assert lines[3] == "error: --point: no point is best in every objective; choose one of these: 1, 0"


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["ui"],
        ["export", "toy"],
        ["report", "toy"],
        ["best", "toy"],
        ["evaluate", "r", "--tasks", "catch"],
    ],
)
def test_a_tracking_address_holds_for_the_process(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "before")
    where = f"sqlite:///{tmp_path / 'not' / 'there.db'}"
    main([*command, "--root", str(tmp_path / "runs"), "--tracking-uri", where])
    assert os.environ["MLFLOW_TRACKING_URI"] == where
    if command[0] in ("ui", "export", "report", "evaluate"):
        assert "there is no MLflow store at " in capsys.readouterr().err


def test_a_server_has_an_interface_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr("analysis.store.check_address", lambda uri: None)
    where = "http://me:secret@127.0.0.1:5000"
    assert main(["ui", "--root", str(tmp_path), "--tracking-uri", where]) == 0
    out = capsys.readouterr().out
    assert "http://me:***@127.0.0.1:5000" in out
    assert "secret" not in out


def test_tables_are_aligned() -> None:
    assert aligned([["a", "bb"], [None, 0.5], ["long", True]]) == ["a     bb", "None  0.5", "long  True"]
