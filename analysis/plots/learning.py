"""Learning curves: how the points' training score and selection return move with the outer steps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from analysis import statistics
from analysis.frames import SweepData, records
from analysis.lives import final_lives
from analysis.objectives import FINISHED
from analysis.plots.panels import CYCLE, GREY, STYLES, Line, Panel, Rule, thinned
from analysis.plots.pictures import Picture, picture_of
from analysis.points import objective_table
from analysis.statistics import Floats
from analysis.summaries import methods, selection_set

__all__ = ["BANDED", "learning_curves", "point_lines"]

TOLD_APART = 6  # points with a colour of their own; the others are grey
BANDED = 3  # points with a band: more of them hide each other
MOST_LINES = 300  # more are a grey block, and slow to look at
_DASHES = ("dashed", "dotted", "dashdot", "long")  # of baselines without a style of their own
_PLACES = 60  # of a curve; a training score is too noisy to be drawn at every step


def learning_curves(data: SweepData) -> Picture | None:
    """Training score and selection return against outer steps, a line a point; None: no series was kept."""
    select = selection_set(data)
    wanted = [("train/score", "training score", "training score")]
    if select is not None:
        wanted.append((f"evaluation/{select}/return", f"return on set {select}", "return at end of life"))
    panels, notes = [], []
    for metric, title, y_label in wanted:
        lines, every = point_lines(data, metric)
        if all(len(line.x) < 2 for line in lines):
            continue  # assessed once: a place is no curve, and tables tell it
        rules = _rules(data, select) if select and metric.startswith("evaluation/") else []
        panels.append(Panel(title, "outer steps", y_label, lines, rules))
        if every > 1:
            notes.append(f"Each place of {title} averages {every} outer steps")
    if not panels:
        return None
    seeds, points = data.series["seed"].nunique(), len(data.rows("point"))
    if points > MOST_LINES:
        notes.append(f"Of {points} points the first {MOST_LINES} are drawn")
    caption = (
        f"Mean over n = {seeds} seeds; points in the order of their objective, thin where they did not "
        f"finish; band of the best {BANDED}: 95 % bootstrap interval over seeds. "
        f"{'; '.join(notes)}{'.' if notes else ''}"
    )
    return picture_of("learning_curves", "Learning curves", caption.strip(), panels)


def point_lines(data: SweepData, metric: str, band: tuple[str, str] | None = None) -> tuple[list[Line], int]:
    """The points' lines, best first, and how many steps one place averages at most.

    Args:
        data: of the sweep.
        metric: of the series, a mean over seeds.
        band: metrics whose means over seeds the best points' bands lie between; None: bands are intervals
            over seeds.
    """
    lines, most = [], 1
    for rank, row in enumerate(records(objective_table(data))[:MOST_LINES]):
        curve = _curve(data, row["run_id"], metric)
        if curve is None:
            continue
        steps, values, every = curve
        most = max(most, every)
        ends = [_curve(data, row["run_id"], name) for name in band or ()]
        between = [end[1].mean(axis=0) for end in ends if end is not None]
        lines.append(_line(row, rank, steps, values, between))
    return lines, most


def _line(row: dict[str, Any], rank: int, steps: Floats, values: Floats, between: list[Floats]) -> Line:
    """A point's line; those that did not finish come last in the ranking and share an entry a status."""
    finished = row["status"] == FINISHED
    told = finished and rank < TOLD_APART
    band = told and rank < BANDED and (bool(between) or values.shape[0] > 1)
    interval = statistics.interval_over_seeds(values, resamples=1000 if band and not between else 1)
    low, high = between or (interval.low, interval.high)
    others = "other points" if finished else f"{row['status']} points"
    return Line(
        label=row["label"] if told else others,
        x=steps,
        y=interval.estimate,
        low=low if band else None,
        high=high if band else None,
        color=CYCLE[rank] if told else GREY,
        dash="solid" if finished else "dotted",
        width=2.2 if told and rank == 0 else 1.6 if told else 0.7,
        behind=not told,
    )


def _curve(data: SweepData, run_id: str, metric: str) -> tuple[Floats, Floats, int] | None:
    """Steps [U], values [S, U] and the number of steps that one place averages."""
    found = data.curve(run_id, metric)
    if found is None:
        return None
    every, values = thinned(found[1], _PLACES)
    steps = found[0].astype(np.float64)
    last = np.minimum(np.arange(every - 1, every * values.shape[1], every), len(steps) - 1)
    return steps[last], values, every


def _rules(data: SweepData, select: str) -> list[Rule]:
    """The baselines' end-of-life return on the selection set."""
    known = [method for method in methods(data) if method.key != "best"]
    taken = {STYLES[method.key][1] for method in known if method.key in STYLES}
    free = itertools.cycle([dash for dash in _DASHES if dash not in taken] or _DASHES)
    rules = []
    for method in known:
        lives = final_lives(data, method.run_id, select)
        if lives is not None and lives.returns.size:
            # Black: the colours are the points'.
            dash = STYLES[method.key][1] if method.key in STYLES else next(free)
            rules.append(Rule(method.label, float(lives.end.mean()), color="#000000", dash=dash))
    return rules
