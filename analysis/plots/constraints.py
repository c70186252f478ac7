"""Pictures of soft constraints: fixed multipliers as a line of reference, multipliers and rates in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.constraints import FIXED
from analysis.frames import CONSTRAINED, SweepData
from analysis.plots.panels import CYCLE, Line, Panel, Rule
from analysis.plots.pictures import Picture, picture_of
from analysis.statistics import interval_over_seeds

__all__ = ["multiplier_profile", "multipliers_over_time"]

_DASHES = ("dotted", "dashed", "solid", "dashdot")
_MOST_RULES = 4


def multiplier_profile(lives: pd.DataFrame) -> Picture | None:
    """Score, return and mean cost against a fixed multiplier, two panels a task; None: no profile."""
    fixed: Any = lives[lives["method"] == FIXED]
    starts = sorted(fixed["start"].unique())
    if len(starts) < 2:
        return None
    ticks = [(float(place), f"{start:g}") for place, start in enumerate(starts)]
    panels = []
    for task, group in fixed.groupby("task", sort=False):
        others: Any = lives[(lives["task"] == task) & (lives["method"] != FIXED)]
        means = others.groupby("method", sort=False)["score"].mean().iloc[:_MOST_RULES]
        rules = [
            Rule(f"{name}, mean score", float(value), color=CYCLE[2 + at], dash=_DASHES[at])
            for at, (name, value) in enumerate(means.items())
        ]
        lines = [
            _profile(group, starts, "score", "score", CYCLE[0], "solid"),
            _profile(group, starts, "return", "return", CYCLE[1], "dashed"),
        ]
        panels.append(Panel(str(task), "fixed multiplier", "of an episode", lines, rules, x_ticks=ticks))
        cost = [_profile(group, starts, "cost", "mean cost of a step", CYCLE[2], "solid")]
        panels.append(Panel(str(task), "fixed multiplier", "mean cost of a step", cost, x_ticks=ticks))
    caption = (
        "Last quarter of the checkpoints, mean and 95 % bootstrap interval over "
        f"n = {fixed['seed'].nunique()} seeds. Rules: means of other methods over their initial rates and "
        "multipliers."
    )
    return picture_of("multiplier_profile", "Fixed multipliers", caption, panels)


def multipliers_over_time(data: SweepData, lives: pd.DataFrame) -> Picture | None:
    """Multiplier and rate against outer steps, a line a method and initial rate; None: none moves."""
    moving: Any = lives[lives["method"] != FIXED]
    if moving.empty:
        return None
    rates = sorted(moving["rate"].unique())
    methods = list(dict.fromkeys(moving["method"]))[: len(CYCLE)]
    lines: dict[str, list[Line]] = {"multiplier": [], "rate": []}
    for (method, rate), group in moving[moving["method"].isin(methods)].groupby(
        ["method", "rate"], sort=False
    ):
        for name, drawn in lines.items():
            curves = [data.curve(run_id, CONSTRAINED[name]) for run_id in group["run_id"].unique()]
            values = np.concatenate([found[1] for found in curves if found is not None])
            steps = next(found[0] for found in curves if found is not None).astype(np.float64)
            # The logarithmic axis has no place for a multiplier at 0.
            middle = np.maximum(np.median(values, axis=0), 1e-8)
            color, dash = CYCLE[methods.index(method)], _DASHES[rates.index(rate) % len(_DASHES)]
            drawn.append(Line(f"{method}, rate {rate:g}", steps, middle, color=color, dash=dash))
    panels = [
        Panel("multiplier", "outer steps", "lambda", lines["multiplier"], log_y=True),
        Panel("rate of the multiplier", "outer steps", "rate", lines["rate"], log_y=True),
    ]
    caption = "Medians over tasks, initial multipliers and seeds; values below 1e-8 are drawn there."
    return picture_of("multipliers_over_time", "Multipliers over time", caption, panels)


def _profile(group: pd.DataFrame, starts: list[float], name: str, label: str, color: str, dash: str) -> Line:
    values = group.pivot_table(index="seed", columns="start", values=name)[starts].to_numpy()
    found = interval_over_seeds(values)
    x = np.arange(len(starts), dtype=np.float64)
    return Line(label, x, found.estimate, found.low, found.high, color=color, dash=dash)
