"""Exposed hyperparameters while an outer loop tunes them: a panel each, a line a point.

Learners whose hyperparameters are meta-parameters report the values among their training metrics
(``metalab.exposure``), a population also the quantiles of its members.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import EXPOSED, SweepData, records
from analysis.plots.learning import BANDED, point_lines
from analysis.plots.panels import Line, Panel, Rule
from analysis.plots.pictures import Picture, picture_of
from analysis.points import best_row
from analysis.statistics import t_interval

__all__ = ["exposed_names", "tuned_table", "tuned_values"]

_QUANTILES = ("low", "median", "high")  # of a population's members
_WIDE = 20.0  # positive values that span this factor are drawn on a logarithmic axis
_DASHES = ("dashed", "dotted", "dashdot", "long")


def exposed_names(data: SweepData) -> list[str]:
    """The hyperparameters whose values the training metrics hold, in the order of their series."""
    held = [one.removeprefix(EXPOSED) for one in _metrics(data) if one.startswith(EXPOSED)]
    return [name for name in held if name.rpartition("/")[2] not in _QUANTILES]


def tuned_values(data: SweepData) -> Picture | None:
    """Every exposed hyperparameter against outer steps; None: no point exposes one."""
    names = exposed_names(data)
    if not names:
        return None
    metrics = set(_metrics(data))
    populations = any(f"{EXPOSED}{name}/median" in metrics for name in names)
    panels, most = [], 1
    for name in names:
        panel, every = _panel(data, name, populations)
        panels.append(panel)
        most = max(most, every)
    band = "10 % to 90 % of the members" if populations else "95 % bootstrap interval over seeds"
    caption = (
        f"{'Median member, mean' if populations else 'Mean'} over n = {data.series['seed'].nunique()} seeds; "
        f"band of the best {BANDED} points: {band}."
        + (f" Each place averages {most} outer steps." if most > 1 else "")
        + (" Rules: the best setting of a baseline's search." if any(p.rules for p in panels) else "")
    )
    return picture_of("tuned_values", "Hyperparameters while they are tuned", caption, panels)


def tuned_table(data: SweepData) -> pd.DataFrame:
    """One row a hyperparameter: the best point's first and last value over seeds, and the baselines' best.

    Returns:
        Columns ``hyperparameter, first, last, last_low, last_high`` (95 % t over seeds), ``n_seeds``, and
        ``best setting of BASELINE`` for each whose search has any of them; empty where nothing is exposed.
    """
    best, rows = best_row(data), []
    if best is None:
        return pd.DataFrame()
    for name in exposed_names(data):
        curve = data.curve(best["run_id"], EXPOSED + name)
        if curve is not None:
            last = curve[1][:, -1]
            interval = t_interval(last)
            ends = {"last": interval.estimate, "last_low": interval.low, "last_high": interval.high}
            first = float(curve[1][:, 0].mean())
            row = {"hyperparameter": name, "first": first, **ends, "n_seeds": len(last)}
            rows.append(row | _fixed(data, name))
    return pd.DataFrame(rows)


def _metrics(data: SweepData) -> list[str]:
    """The metrics that were kept as series, in the order of their first rows."""
    column: Any = data.series["metric"]
    return [str(metric) for metric in column.unique()]


def _panel(data: SweepData, name: str, populations: bool) -> tuple[Panel, int]:
    metric = EXPOSED + name
    if populations:
        lines, every = point_lines(data, f"{metric}/median", (f"{metric}/low", f"{metric}/high"))
    else:
        lines, every = point_lines(data, metric)
    rules = [
        Rule(label, value, color="#000000", dash=_DASHES[index % len(_DASHES)])
        for index, (label, value) in enumerate(_fixed(data, name).items())
    ]
    return Panel(name, "outer steps", "value", lines, rules, log_y=_is_wide(lines, rules)), every


def _fixed(data: SweepData, name: str) -> dict[str, float]:
    """``best setting of BASELINE`` to the value that the best setting of its search has."""
    found = {}
    for baseline, frame in data.settings.items():
        key = f"inner.{name}"
        if key in frame.columns and "score" in frame.columns:
            value = records(frame.sort_values("score", ascending=False))[0][key]
            if isinstance(value, int | float) and np.isfinite(value):
                found[f"best setting of {baseline}"] = float(value)
    return found


def _is_wide(lines: list[Line], rules: list[Rule]) -> bool:
    drawn = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    values = np.concatenate([*drawn, [rule.value for rule in rules]])
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() / values.min() >= _WIDE)
