"""``metalab status``, ``best`` and ``export``: what there is to know of sweeps, running or not."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metalab.commands.shared import aligned, cut, root_of, terminal_width
from metalab.errors import ConfigError, MetalabError
from metalab.progress import duration

if TYPE_CHECKING:
    from metalab.sweep.overview import Candidate, Overview

__all__ = ["best", "export", "status"]

_MOST_OF_FRONT = 10  # points of a Pareto front that `status` lists


def status(arguments: argparse.Namespace) -> int:
    """Prints how one sweep stands, or a line for each below the root."""
    from metalab.sweep.overview import read_overview, sweep_folder, sweep_folders

    root = root_of(arguments)
    if arguments.sweep is not None:
        found = read_overview(sweep_folder(root, arguments.sweep), root)
        print(_json(found) if arguments.json else "\n".join(_described(found)))
        return 0
    overviews, unreadable = [], []
    for folder in sweep_folders(root):
        try:
            overviews.append(read_overview(folder, root))
        except MetalabError as error:  # one broken folder must not hide the others
            unreadable.append(f"{folder.relative_to(root)}: {error}")
    if arguments.json:
        print(json.dumps([_plain(one) for one in overviews], indent=2))
    elif overviews:
        rows = [["sweep", "state", "points ended", "best", "time left", "records waiting"]]
        print("\n".join(cut(line, terminal_width()) for line in aligned(rows + list(map(_row, overviews)))))
    else:
        print(f"no sweep has run in {arguments.root}")
    for line in unreadable:
        print(line, file=sys.stderr)
    return 0


def best(arguments: argparse.Namespace) -> int:
    """Prints the best point, or another one, as a sweep file."""
    from metalab.sweep.overview import read_overview, sweep_folder

    root = root_of(arguments)
    folder = sweep_folder(root, arguments.sweep)
    overview = read_overview(folder, root)
    if len(overview.objectives) > 1 and overview.best:
        print("\n".join(aligned(_front(overview))), file=sys.stderr)
    from metalab.devices import configure

    configure(1)
    from metalab.sweep.chosen import point_file

    text = point_file(folder, arguments.point)
    if arguments.output is None:
        print(text, end="")
        return 0
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("--output", f"{arguments.output} cannot be written: {error}") from error
    print(arguments.output)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Writes a sweep's tables and says where they are."""
    root = root_of(arguments)
    from analysis.export import export_sweep

    folder = arguments.to if arguments.to is not None else root / arguments.sweep / "export"
    written = export_sweep(root, arguments.sweep, folder, arguments.format)
    print("\n".join(aligned([[path, f"{rows} rows"] for path, rows in written])))
    return 0


def _described(one: Overview) -> list[str]:
    lines = [
        ("points", _points(one)),
        *(("best", text) for text in _best_lines(one)),
        ("pace", _pace(one)),
        ("baselines", f"{one.baselines_done} of {one.baselines}" if one.baselines else ""),
        ("records", _records(one)),
        ("changes", f"{one.changes} accepted (see sweep.json)" if one.changes else ""),
        ("committed", f"{duration(time.time() - one.committed)} ago" if one.committed else "not yet"),
        ("folder", str(one.folder)),
    ]
    return [f"{one.name}: {_state(one)}", *(f"{name:<10} {text}" for name, text in lines if text)]


def _state(one: Overview) -> str:
    if one.engine is not None:
        who = f"pid {one.engine.pid} on {one.engine.host}, last sign of life {duration(one.engine.age)} ago"
        if one.state == "running":
            return f"running ({who})"
        return f"interrupted ({who}); `metalab sweep FILE` goes on where its last commit is"
    return "ended" if one.state == "ended" else "stopped; `metalab sweep FILE` goes on"


def _points(one: Overview) -> str:
    counts = [f"{count} {status}" for status, count in one.counts.items() if count]
    return f"{_ended(one)} of {one.points} ended: {', '.join(counts)}"


def _ended(one: Overview) -> int:
    return one.points - one.counts["running"] - one.counts["waiting"]


def _best_lines(one: Overview) -> list[str]:
    if not one.best:
        return ["no point has finished with a finite objective yet"]
    shown = [_candidate(candidate, one.objectives) for candidate in one.best[:_MOST_OF_FRONT]]
    if len(one.best) > _MOST_OF_FRONT:
        shown.append(f"and {len(one.best) - _MOST_OF_FRONT} more of the Pareto front")
    return shown


def _candidate(candidate: Candidate, objectives: Sequence[str]) -> str:
    reached = ", ".join(
        f"{name} = {value:.6g}" for name, value in zip(objectives, candidate.objective, strict=True)
    )
    values = ", ".join(f"{key}={_short(value)}" for key, value in candidate.values.items())
    return f"point {candidate.number}: {reached}" + (f" at {values}" if values else "")


def _pace(one: Overview) -> str:
    if one.steps_per_s <= 0:
        return ""
    text = f"{one.steps_per_s:.4g} lane steps/s"
    return text if one.state == "ended" else f"{text}, {_left(one)} left for the points"


def _left(one: Overview) -> str:
    if one.seconds_left is None:
        return "-"
    return ("at most " if one.at_most else "") + duration(one.seconds_left)


def _records(one: Overview) -> str:
    told = "all delivered" if not one.records_waiting else f"{one.records_waiting} wait for the store"
    if not one.records_refused:
        return told
    return f"{told}; {one.records_refused} were refused (see outbox.rejected.jsonl)"


def _row(one: Overview) -> list[Any]:
    reached = "-"
    if one.best:
        first = one.best[0]
        more = f" (front of {len(one.best)})" if len(one.directions) > 1 else ""
        reached = f"{', '.join(f'{v:.4g}' for v in first.objective)} at point {first.number}{more}"
    left = "-" if one.state == "ended" else _left(one)
    return [one.name, one.state, f"{_ended(one)} of {one.points}", reached, left, one.records_waiting]


def _front(one: Overview) -> list[list[Any]]:
    """The Pareto front as a table, its header first."""
    keys = list(dict.fromkeys(key for candidate in one.best for key in candidate.values))
    rows = [
        [
            candidate.number,
            *map(float, candidate.objective),
            *(_short(candidate.values.get(key)) for key in keys),
        ]
        for candidate in one.best
    ]
    return [["point", *one.objectives, *keys], *rows]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def _json(one: Overview) -> str:
    return json.dumps(_plain(one), indent=2)


def _plain(one: Overview) -> dict[str, Any]:
    """The overview as JSON-able data."""
    return {**dataclasses.asdict(one), "folder": str(one.folder)}
