"""``metalab plan``, ``run`` and ``sweep``: from a sweep file to its runs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from metalab.commands.shared import aligned, cut, root_of, terminal_width

if TYPE_CHECKING:
    from metalab.spec import SweepSpec
    from metalab.sweep.engine import SweepResult

__all__ = ["plan", "run", "sweep"]

_MOST_ENDINGS = 20  # lines of the table at the end


def plan(arguments: argparse.Namespace) -> int:
    """Says what a sweep file would run."""
    root = root_of(arguments)
    spec = _load(arguments)
    from metalab.histories import use_root
    from metalab.sweep.plan import describe, make_plan, outline
    from metalab.sweep.recording import expected

    use_root(root)
    recordings = expected(spec)
    if any(one.missing for one in recordings):
        print(outline(spec, recordings))
    else:
        plan = make_plan(spec, max_lanes=arguments.max_lanes, ask_xla=arguments.compile)
        print(describe(plan, recordings))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Runs a sweep file's own values as one point."""
    return _execute(arguments, single=True)


def sweep(arguments: argparse.Namespace) -> int:
    """Runs all points of a sweep file."""
    return _execute(arguments, single=False)


def _load(arguments: argparse.Namespace) -> SweepSpec:
    from metalab.devices import configure

    configure(arguments.devices)
    from metalab.config import load

    return load(arguments.file, arguments.overrides, smoke=arguments.smoke)


def _execute(arguments: argparse.Namespace, single: bool) -> int:
    root = root_of(arguments)
    spec = _load(arguments)
    from metalab.sweep.engine import Options, run_sweep
    from metalab.sweep.plan import check_spec, plan_points
    from metalab.sweep.recording import record_all
    from metalab.tracking import address, redacted

    record_all(spec, root)  # before anything asks what is in them
    check_spec(spec, plan_points(spec, single)[0])
    if not single and not arguments.fresh:
        _say_what_is_there(root, spec.name)
    options = Options(
        single=single,
        fresh=arguments.fresh,
        accept_changes=arguments.accept_changes,
        retry=arguments.retry,
        max_lanes=arguments.max_lanes,
        quick=arguments.smoke,
    )
    if arguments.checkpoint_seconds is not None:
        options = dataclasses.replace(options, checkpoint_seconds=arguments.checkpoint_seconds)
    result = run_sweep(spec, root, options)
    print("\n".join(_summary(result)))
    print(f"MLflow store: {redacted(address(root))}    (browse it: metalab ui --root {arguments.root})")
    if not single and not arguments.no_report:
        from analysis.report import write_report

        print(f"Report:       {write_report(root, spec.name)}")
    return 0 if result.finished else 1


def _say_what_is_there(root: Path, name: str) -> None:
    """Nobody should take a sweep that goes on for one that begins."""
    from metalab.sweep.overview import read_overview, sweep_folder
    from metalab.tracking import safe_name

    if not (root / safe_name(name) / "sweep.json").is_file():
        return
    found = read_overview(sweep_folder(root, name), root)
    ended = found.points - found.counts["running"] - found.counts["waiting"]
    print(f"goes on with {name}: {ended} of {found.points} points have ended before", file=sys.stderr)


def _summary(result: SweepResult) -> list[str]:
    """Counts of points by how they ended, and a table of what failed."""
    counts = Counter(ending.status for ending in result.endings if ending.who.startswith("point "))
    counts["finished"] = result.finished - counts["pruned"]
    told = ", ".join(f"{counts[status]} {status}" for status in ("finished", "pruned", "diverged", "failed"))
    lines = [f"points:       {told}"]
    lost = [ending for ending in result.endings if ending.status in ("failed", "diverged")]
    if lost:
        rows = [[one.who, one.status, one.step, one.reason] for one in lost[:_MOST_ENDINGS]]
        lines += [
            cut(line, terminal_width()) for line in aligned([["who", "status", "step", "reason"], *rows])
        ]
        more = f"and {len(lost) - _MOST_ENDINGS} more; " if len(lost) > _MOST_ENDINGS else ""
        lines.append(f"{more}every reason in full: {result.folder / 'hardware.json'}")
    return lines
