"""The command line: ``metalab list | plan | run | sweep | evaluate | report | ui``.

Whatever is heavy (JAX, MLflow, Hydra) is imported by the command that needs it: ``--help`` and ``list``
answer at once, and the number of devices is set before JAX starts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalab.errors import ConfigError, MetalabError, nearest

if TYPE_CHECKING:
    from metalab.spec import SweepSpec

__all__ = ["main"]

_OVERRIDES = "KEY=VALUE in Hydra's grammar, for example inner.optimizer.learning_rate=0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1: points failed; 2: a mistake of the user's, told in one line.
    """
    # The console script does not have the current folder on its path; a user's components live there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    arguments = _parsed(argv)
    try:
        return arguments.command(arguments)
    except MetalabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (``| head``). What is still buffered has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; overrides may stand before, between and after the options."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metalab", description="Meta-learning experiments from sweep files."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="what there is: components, sweep files, evaluation suites")
    command.add_argument("group", nargs="?", help="inner, rule, network, ..., sweeps, suites; all without it")
    command.set_defaults(command=_list)

    command = commands.add_parser("plan", help="what a sweep file would run, and what it needs")
    _add_file(command)
    command.add_argument("--compile", action="store_true", help="compile, and say the memory XLA needs")
    command.set_defaults(command=_plan)

    command = commands.add_parser("run", help="one point: a sweep file's own values, its search left aside")
    _add_file(command)
    _add_running(command)
    command.set_defaults(command=_run)

    command = commands.add_parser("sweep", help="all points of a sweep file, its baselines and its report")
    _add_file(command)
    _add_running(command)
    command.add_argument("--no-report", action="store_true", help="write no report at the end")
    command.set_defaults(command=_sweep)

    command = commands.add_parser("evaluate", help="meta-test trained meta-parameters on other tasks")
    command.add_argument("run", metavar="RUN", help="MLflow's id of a point's run")
    command.add_argument(
        "--tasks", nargs="+", required=True, metavar="SUITE", help="see `metalab list suites`"
    )
    _add_root(command)
    _add_devices(command)
    command.set_defaults(command=_evaluate)

    command = commands.add_parser("report", help="write a sweep's report again")
    command.add_argument("sweep", metavar="SWEEP", help="its name")
    _add_root(command)
    command.set_defaults(command=_report)

    command = commands.add_parser("ui", help="browse the runs in MLflow")
    _add_root(command)
    command.add_argument("--port", type=_positive, default=5000)
    command.set_defaults(command=_ui)
    return parser


def _add_file(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", metavar="FILE", help="a sweep file, or the name of one that comes with metalab"
    )
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDES)
    command.add_argument("--smoke", action="store_true", help="the file's own smallest size")
    command.add_argument("--max-lanes", type=_positive, metavar="N", help="points in one pack at most")
    _add_devices(command)


def _add_running(command: argparse.ArgumentParser) -> None:
    _add_root(command)
    command.add_argument("--fresh", action="store_true", help="start anew; what an earlier call left is lost")


def _add_root(command: argparse.ArgumentParser) -> None:
    text = "folder of the MLflow store and of the sweeps' files (default: ./runs)"
    command.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help=text)


def _add_devices(command: argparse.ArgumentParser) -> None:
    text = "CPU devices (default: one for every core); accelerators are all used"
    command.add_argument("--devices", type=_positive, metavar="N", help=text)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number at least 1, got {text!r}")
    return value


def _list(arguments: argparse.Namespace) -> int:
    from metalab.catalogue import groups

    known = [*groups(), "sweeps", "suites"]
    if arguments.group is not None and arguments.group not in known:
        raise ConfigError("list", f"unknown group {arguments.group!r}; {nearest(arguments.group, known)}")
    for group in known if arguments.group is None else [arguments.group]:
        rows = _rows(group)
        if not rows:
            continue
        if arguments.group is None:
            print(f"{group}:")
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            print(f"  {name:<{width}}  {text}".rstrip())
    return 0


def _rows(group: str) -> list[tuple[str, str]]:
    from metalab import resources
    from metalab.catalogue import entries

    if group == "sweeps":
        return [(name, _described(resources.SWEEPS / f"{name}.yaml")) for name in resources.sweep_names()]
    if group == "suites":
        return [(name, _described(resources.SUITES / f"{name}.yaml")) for name in resources.suite_names()]
    return [(e.name, f"{e.summary} [{e.paper}]" if e.paper else e.summary) for e in entries(group)]


def _described(path: Path) -> str:
    """The first line of a file's description, else of its leading comment."""
    import yaml

    text = path.read_text(encoding="utf-8")
    lines = str((yaml.safe_load(text) or {}).get("description") or text.lstrip("# ")).splitlines()
    return lines[0] if lines else ""


def _load(arguments: argparse.Namespace) -> SweepSpec:
    from metalab.devices import configure

    configure(arguments.devices)
    from metalab.config import load

    return load(arguments.file, arguments.overrides, smoke=arguments.smoke)


def _plan(arguments: argparse.Namespace) -> int:
    spec = _load(arguments)
    from metalab.sweep.plan import check_spec, describe, make_plan, plan_points

    check_spec(spec, plan_points(spec)[0])
    print(describe(make_plan(spec, max_lanes=arguments.max_lanes, ask_xla=arguments.compile)))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    return _execute(arguments, single=True)


def _sweep(arguments: argparse.Namespace) -> int:
    return _execute(arguments, single=False)


def _execute(arguments: argparse.Namespace, single: bool) -> int:
    spec = _load(arguments)
    from metalab.sweep.engine import run_sweep
    from metalab.sweep.plan import check_spec, make_plan, plan_points

    root = _root(arguments, must_exist=False)
    check_spec(spec, plan_points(spec, single)[0])
    most = make_plan(spec, single=single, max_lanes=arguments.max_lanes).most
    result = run_sweep(
        spec, root, single=single, resume=not arguments.fresh, max_lanes=most, quick=arguments.smoke
    )
    print(f"points:       {result.finished} finished, {result.failed} failed")
    print(f"MLflow store: {root / 'mlflow.db'}    (browse it: metalab ui --root {arguments.root})")
    if not single and not arguments.no_report:
        print(f"Report:       {_written_report(root, spec.name)}")
    return 1 if result.failed else 0


def _written_report(root: Path, name: str) -> Path:
    from analysis.report import write_report

    return write_report(root, name)


def _evaluate(arguments: argparse.Namespace) -> int:
    root = _root(arguments, must_exist=True)
    from metalab.devices import configure

    configure(arguments.devices)
    from metalab.config import load_suite

    for name in arguments.tasks:
        load_suite(name)  # a name that is not there is said before anything is read
    from metalab.sweep.meta_test import evaluate_run

    _print_table(evaluate_run(arguments.run, arguments.tasks, root))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    print(_written_report(_root(arguments, must_exist=True), arguments.sweep))
    return 0


def _ui(arguments: argparse.Namespace) -> int:
    root = _root(arguments, must_exist=True)
    address = f"sqlite:///{root / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(arguments.port)])


def _root(arguments: argparse.Namespace, must_exist: bool) -> Path:
    root: Path = arguments.root.absolute()
    if root.exists() and not root.is_dir():
        raise ConfigError("--root", f"{arguments.root} is a file; expected a folder")
    if must_exist and not (root / "mlflow.db").is_file():
        raise ConfigError("--root", f"there is no MLflow store in {arguments.root}: no sweep has run there")
    return root


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of equal keys, as aligned columns."""
    if not rows:
        return
    header = list(rows[0])
    cells = [[_cell(row.get(name)) for name in header] for row in rows]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    for line in [header, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
