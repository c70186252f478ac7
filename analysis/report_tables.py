"""The report's tables: frames as text, with captions that say what was done to the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import points, summaries
from analysis.frames import SweepData, records
from analysis.tables import Table, number, with_interval

__all__ = [
    "MOST_ROWS",
    "broken_seeds",
    "front",
    "headline",
    "normalised",
    "search_results",
    "settings",
    "shown",
    "size",
    "thresholds",
    "tuned",
    "unfinished",
]

MOST_ROWS = 50  # of a table on the page; the CSV file has all
N = "n (seeds x tasks)"


def size(row: dict[str, Any]) -> str:
    """``n_seeds x n_tasks`` of a row."""
    return f"{number(row['n_seeds'])} x {number(row['n_tasks'])}"


def headline(frame: pd.DataFrame, data: SweepData) -> Table:
    """Evaluation sets by methods."""
    base = summaries.reference(data)
    name = base.key if base else "reference"
    kinds = list(dict.fromkeys(frame["interval"]))
    rows = []
    for row in records(frame):
        notes = [row["interval"]] if len(kinds) > 1 else []
        notes += [f"{row['left_out']} seeds broke down: left out"] if row["left_out"] else []
        cells = [row["set"], row["label"], with_interval(row, "return"), with_interval(row, "over_life")]
        cells += [with_interval(row, "ratio"), with_interval(row, "improves")] if base else []
        rows.append([*cells, size(row), "; ".join(notes)])
    columns = ["set", "method", "return at end of life [95 %]", "return over life [95 %]"]
    columns += [f"ratio to {name} [95 %]", f"P(better than {name}) [95 %]"] if base else []
    over = f" Interval: {kinds[0]}." if len(kinds) == 1 else ""
    ratio = " The ratio is of end-of-life means; its interval resamples tasks in pairs and seeds apart."
    caption = (
        f"Means over seeds and tasks.{over} The end of life is the mean of the last three assessments."
        f"{ratio if base else ''} With fewer than five seeds a bootstrap interval is narrower than its name: "
        "the CSV file also has the t interval over seeds."
    )
    columns.append(N)
    if any(row[-1] for row in rows):
        columns.append("notes")
    else:
        rows = [row[:-1] for row in rows]
    return Table("headline", caption, columns, rows, frame, _strong(frame))


def thresholds(frame: pd.DataFrame, data: SweepData) -> Table:
    """Steps to the threshold and success, evaluation sets by methods."""
    base = summaries.reference(data)
    rows = []
    for row in records(frame):
        cells = [row["set"], number(row["threshold"]), row["label"], with_interval(row, "steps")]
        cells += [with_interval(row, "speedup")] if base else []
        success = f"{row['solved_seeds']}: {with_interval(row, 'success', 2)}"
        rows.append([*cells, f"{100 * row['censored']:.0f} %", success, size(row)])
    columns = ["set", "threshold", "method", "environment steps to hold it [95 %]"]
    columns += [f"{base.key}'s steps / its steps [95 %]"] if base else []
    columns += ["lives that never hold it", "seeds that succeed [95 % Wilson]", N]
    caption = (
        "Steps until the return stays at or above the threshold; 95 % bootstrap over seeds and tasks. A life "
        "that never holds it counts with its whole length and one stride: such means are lower bounds. A "
        "seed succeeds when its mean return at the end of life reaches the threshold."
    )
    floors = [_floor(row) for row in records(summaries.floors(data))]
    if floors:
        caption += f" Floor: {'; '.join(floors)}."
    return Table("thresholds", caption, columns, rows, frame, _strong(frame))


def _floor(row: dict[str, Any]) -> str:
    return f"{number(row['steps'])} steps on `{row['set']}`"


def normalised(frame: pd.DataFrame) -> Table:
    """Normalised scores, evaluation sets by methods."""
    rows = [
        [row["set"], row["label"], with_interval(row, "iqm"), with_interval(row, "gap"), size(row)]
        for row in records(frame)
    ]
    columns = ["set", "method", "interquartile mean [95 %]", "optimality gap [95 %]", N]
    caption = (
        "Scores normalised task by task: 0 is the random policy, 1 the optimum. "
        "95 % bootstrap over seeds and tasks."
    )
    return Table("normalised", caption, columns, rows, frame, _strong(frame))


def search_results(data: SweepData, index: int) -> Table:
    """All points by one of the objectives."""
    asked, frame = points.objectives(data), points.objective_table(data, index)
    several, how = len(asked) > 1, points.how_over_seeds(data)
    rows = []
    for row in records(frame)[:MOST_ROWS]:
        broken = f" ({row['n_diverged']} broke down)" if row["n_diverged"] else ""
        cells = [row["label"], *(number(row[key]) for key in data.searched), number(row["objective"])]
        seeds = f"{row['n_seeds']}{broken}" if row["n_seeds"] or broken else "-"
        rows.append([*cells, with_interval(row, "mean"), seeds, row["status"]])
    what = asked[index].name if several else "objective"
    columns = ["point", *data.searched, f"{what} ({how} over seeds)", "mean [95 % bootstrap over seeds]"]
    caption = (
        f"All {len(frame)} points by `{asked[index].name}`, best first, those that did not finish last, with "
        f"what they had reached{shown(len(frame))}."
    )
    best = points.best_row(data)
    strong = (0,) if best is not None and not several else ()
    whole = frame.drop(columns=["run_id", "number"])
    name = f"points_{index}" if several else "points"
    return Table(name, caption, [*columns, "n seeds", "status"], rows, whole, strong)


def front(data: SweepData) -> Table:
    """The Pareto front."""
    asked, chosen = points.objectives(data), points.front(data)
    keys = ["label", *data.searched, *(one.column for one in asked)]
    frame = pd.DataFrame([{key: row[key] for key in keys} for row in chosen])
    named = frame.rename(columns={"label": "point", **{one.column: one.name for one in asked}})
    rows = [[number(value) for value in row] for row in named.itertuples(index=False)]
    columns = ["point", *data.searched, *(f"{one.name} ({one.direction})" for one in asked)]
    caption = (
        "The Pareto front: finished points that no other beats in one objective without losing in another"
        f"{shown(len(rows))}."
    )
    return Table("pareto", caption, columns, rows[:MOST_ROWS], named)


def settings(name: str, frame: pd.DataFrame) -> Table:
    """The best settings that were tried for a baseline."""
    ordered = frame.sort_values("score", ascending=False, ignore_index=True)
    columns = [str(column) for column in ordered.columns]
    rows = [[number(row[column]) for column in columns] for row in records(ordered)[:5]]
    caption = (
        f"Tuning of {name}: the best five of {len(frame)} settings, by their score on the selection set."
    )
    return Table(f"settings_{name}", caption, columns, rows, ordered, (0,))


def tuned(frame: pd.DataFrame) -> Table:
    """What exposed hyperparameters were tuned to."""
    fixed = [str(column) for column in frame.columns if str(column).startswith("best setting")]
    rows = [
        [row["hyperparameter"], number(row["first"]), _value_between(row), number(row["n_seeds"])]
        + [number(row[column]) for column in fixed]
        for row in records(frame)
    ]
    columns = ["hyperparameter", "first", "last [95 % t over seeds]", "n seeds", *fixed]
    caption = "Hyperparameters of the best point, in the first and the last outer step (means over seeds)."
    return Table("tuned", caption, columns, rows, frame)


def _value_between(row: dict[str, Any]) -> str:
    """To four digits: hyperparameters may be small."""
    value, low, high = (number(row[name]) for name in ("last", "last_low", "last_high"))
    return value if low == high == "-" else f"{value} [{low}, {high}]"


def unfinished(frame: pd.DataFrame) -> Table:
    """Runs that did not finish."""
    rows = [[number(value) for value in row] for row in frame.itertuples(index=False)]
    caption = f"Runs that did not finish, with the last outer step that was logged{shown(len(frame))}."
    return Table("unfinished", caption, ["run", "status", "outer step", "reason"], rows[:MOST_ROWS], frame)


def broken_seeds(frame: pd.DataFrame) -> Table:
    """Seeds that broke down."""
    rows = [[number(value) for value in row] for row in frame.itertuples(index=False)]
    caption = (
        "Seeds whose training metrics are not finite from this outer step on, while their point went on"
        f"{shown(len(frame))}."
    )
    return Table("broken_seeds", caption, ["run", "seed", "outer step"], rows[:MOST_ROWS], frame)


def _strong(frame: pd.DataFrame) -> list[int]:
    return [index for index, method in enumerate(frame["method"]) if method == "best"]


def shown(count: int) -> str:
    """What a caption adds where the page does not show all rows."""
    return f"; the first {MOST_ROWS} are shown, the CSV file has all" if count > MOST_ROWS else ""
