"""The command line: what it prints, what it calls, what it leaves alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from metalab.cli import main
from tests.config_toys import write

HEAVY = ("jax", "gymnax", "mlflow", "hydra", "optuna", "pandas")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["sweep", "--help"]])
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
    assert "pack 0: 2 points x 3 seeds = 6 lanes" in out
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
    """What the commands handed on."""

    sweeps: list[dict[str, Any]]
    reports: list[tuple[Path, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """An engine and a report that only remember how they were called."""
    made = Calls([], [])

    def run_sweep(spec: Any, root: Path, **options: Any) -> Any:
        made.sweeps.append({"spec": spec, "root": root, **options})
        return types.SimpleNamespace(parent_run_id="r", finished=1, failed=int(spec.seeds == 7), folder=root)

    def write_report(root: Path, name: str) -> Path:
        made.reports.append((root, name))
        return root / name / "report" / "index.html"

    engine: Any = types.ModuleType("metalab.sweep.engine")
    engine.run_sweep = run_sweep
    report: Any = types.ModuleType("analysis.report")
    report.write_report = write_report
    monkeypatch.setitem(sys.modules, "metalab.sweep.engine", engine)
    monkeypatch.setitem(sys.modules, "analysis.report", report)
    return made


def test_sweep_hands_all_points_on_and_says_where_the_results_are(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, search={"inner.gain": "choice(0.1, 0.2, 0.3)"})
    root = tmp_path / "runs"
    assert main(["sweep", str(path), "--root", str(root), "--max-lanes", "2", "--fresh", "seeds=2"]) == 0
    (call,) = calls.sweeps
    assert (call["root"], call["single"], call["resume"], call["max_lanes"]) == (root, False, False, 2)
    assert (call["spec"].name, call["spec"].seeds) == ("toy", 2)
    assert calls.reports == [(root, "toy")]
    out = capsys.readouterr().out
    assert str(root / "mlflow.db") in out
    assert str(root / "toy" / "report" / "index.html") in out


def test_run_is_one_point_without_a_report(tmp_path: Path, calls: Calls) -> None:
    path = write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"}, smoke={"seeds": 4})
    assert main(["run", str(path), "--root", str(tmp_path / "runs"), "--smoke"]) == 0
    (call,) = calls.sweeps
    assert (call["single"], call["resume"], call["max_lanes"]) == (True, True, 1)
    assert (call["spec"].name, call["spec"].seeds) == ("toy-smoke", 4)
    assert calls.reports == []


def test_failed_points_are_an_exit_code(tmp_path: Path, calls: Calls) -> None:
    command = ["sweep", str(write(tmp_path)), "seeds=7", "--no-report", "--root", str(tmp_path / "runs")]
    assert main(command) == 1
    assert calls.reports == []
