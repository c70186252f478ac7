"""The search as it went: what each point reached, the best so far, and what two objectives trade."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.frames import SweepData
from analysis.objectives import FINISHED, Objective
from analysis.plots.panels import BLUE, GREY, VERMILLION, Line, Panel
from analysis.plots.pictures import Picture, picture_of
from analysis.points import front, objectives
from analysis.statistics import Floats

__all__ = ["best_so_far", "pareto"]


def best_so_far(data: SweepData) -> Picture | None:
    """Every point's objective by its number and the best by points ended; None: fewer than two ended."""
    numbers, values = _progress(data, "sweep/objective")
    ended, best = _progress(data, "sweep/best")
    if len(numbers) < 2 or not len(ended):
        return None
    (asked,) = objectives(data)
    # A step function: the best stays what it is until a point beats it.
    steps, held = np.repeat(ended, 2)[1:], np.repeat(best, 2)[:-1]
    lines = [
        Line("points, by number", numbers, values, color=BLUE, style="points"),
        Line("best so far, by points ended", steps, held, color=VERMILLION),
    ]
    caption = (
        f"`{asked.name}` over seeds of the points that have one, pruned ones with what they had reached; the "
        "line is the best of those that had ended."
    )
    return picture_of("search", "The search as it went", caption, [Panel("", "points", "objective", lines)])


def pareto(data: SweepData) -> Picture | None:
    """Finished points by the first two objectives, the front marked; None: there is one objective."""
    asked = objectives(data)
    if len(asked) < 2:
        return None
    first, second = asked[:2]
    chosen = {row["run_id"] for row in front(data)}
    rows = [row for row in data.rows("point") if row["status"] == FINISHED]
    rows = [row for row in rows if all(np.isfinite(row.get(one.column, np.nan)) for one in (first, second))]
    if not rows:
        return None
    at = np.asarray([[row[first.column], row[second.column]] for row in rows], np.float64)
    on_front = np.asarray([row["run_id"] in chosen for row in rows])
    edge = at[on_front][np.argsort(at[on_front][:, 0], kind="stable")]
    lines = [Line("", edge[:, 0], edge[:, 1], color=GREY, dash="dotted", width=1.2)]
    for label, where, color in (("points", ~on_front, BLUE), ("Pareto front", on_front, VERMILLION)):
        if where.any():
            lines.append(Line(label, at[where, 0], at[where, 1], color=color, style="points"))
    more = f" The front is that of all {len(asked)} objectives." if len(asked) > 2 else ""
    caption = (
        f"n = {len(rows)} finished points; on the front no other is better in one and no worse in any.{more}"
    )
    panel = Panel("", _axis(first), _axis(second), lines)
    return picture_of("pareto", "What the objectives trade", caption, [panel])


def _axis(objective: Objective) -> str:
    return f"{objective.name} ({objective.direction})"


def _progress(data: SweepData, metric: str) -> tuple[Floats, Floats]:
    """Steps and finite values of a curve of the sweep's own run."""
    rows: Any = data.progress[data.progress["metric"] == metric]
    steps, values = rows["step"].to_numpy(np.float64), rows["value"].to_numpy(np.float64)
    sound = np.isfinite(values)
    return steps[sound], values[sound]
