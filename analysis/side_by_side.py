"""A few points side by side: what each reached on every evaluation set, and the baselines beside them.

The headline follows the best point alone. Where a sweep asks which of two learners is better (and its
training tasks cannot say), all of them are the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import SweepData, records
from analysis.objectives import FINISHED
from analysis.summaries import set_names
from analysis.tables import Table, number, with_interval

__all__ = ["MOST_POINTS", "side_by_side", "tables"]

MOST_POINTS = 8  # of more, the search says more than a table of all
_LEFT_OUT = ("mean_return",)  # is in the headline


def side_by_side(data: SweepData) -> pd.DataFrame:
    """Rows ``label, set, metric, value, value_low, value_high`` of finished points and baselines, as logged.

    The metrics are those of the points. Empty where there is one point alone, or more than ``MOST_POINTS``.
    """
    points = [row for row in data.rows("point") if row["status"] == FINISHED]
    if not 1 < len(points) <= MOST_POINTS:
        return pd.DataFrame()
    rows, others = (
        [
            {"label": _label(run, data.searched)} | cells
            for run in runs
            for name in set_names(data)
            for cells in _logged(run, name)
        ]
        for runs in (points, data.rows("baseline"))
    )
    told = {row["metric"] for row in rows}
    return pd.DataFrame([*rows, *(row for row in others if row["metric"] in told)])


def tables(data: SweepData) -> list[Table]:
    """One table a metric: points and baselines by evaluation sets."""
    frame = side_by_side(data)
    if frame.empty:
        return []
    seeds = number(data.config.get("seeds", np.nan))
    return [_table(str(metric), rows, seeds) for metric, rows in frame.groupby("metric", sort=False)]


def _table(metric: str, frame: pd.DataFrame, seeds: str) -> Table:
    cells = {(row["label"], row["set"]): with_interval(row, "value") for row in records(frame)}
    labels, sets = (list(dict.fromkeys(frame[key])) for key in ("label", "set"))
    rows = [[label, *(cells.get((label, name), "-") for name in sets)] for label in labels]
    caption = (
        f"`{metric}`: means over {seeds} seeds and the tasks of each set; interval: 95 % Student t over "
        "seeds, as logged."
    )
    return Table(f"side_by_side_{metric}", caption, ["", *sets], rows, frame)


def _label(run: dict[str, Any], searched: tuple[str, ...]) -> str:
    """``point 0 (symla)``: a point with its searched values, a baseline by its name."""
    values = [number(run[key]) for key in searched] if run["kind"] == "point" else []
    return f"{run['label']} ({', '.join(values)})" if values else run["label"]


def _logged(run: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What the run has logged of an evaluation set, one entry a metric."""
    prefix = f"final/{name}/"
    found = []
    for key, value in run.items():
        metric = str(key).removeprefix(prefix)
        if not str(key).startswith(prefix) or metric.endswith(("_low", "_high")) or metric in _LEFT_OUT:
            continue
        if np.isfinite(value):
            bounds = {f"value_{end}": run.get(f"{key}_{end}", np.nan) for end in ("low", "high")}
            found.append({"set": name, "metric": metric, "value": value} | bounds)
    return found
