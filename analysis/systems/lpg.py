"""LPG (Oh et al. 2020, arXiv:2007.08794): is the learned rule better than A2C, reliably, and does y carry it?

The ablation of y is read from pairs of evaluation sets: a set ``NAME_constant_y`` holds the same tasks as
``NAME`` with y(s_{t+1}) replaced by a constant. How much of the exact values y tells is read from sets with
``probe: true``, beside the same for the rule as it is initialised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.lives import Lives, last_lives
from analysis.statistics import Interval

__all__ = ["ABLATED", "score"]

ABLATED = "_constant_y"
_BOTH = "95 % bootstrap over seeds and tasks"
_PROBED = {
    "prediction_r2": "R^2 of exact values from y",
    "prediction_r2_untrained": "R^2 of exact values from y, untrained rule",
    "prediction_r2_gain": "R^2 gained by training",
}


def score(frame: pd.DataFrame) -> pd.DataFrame:
    """Ratio to A2C and to the floor, speed-up over A2C, success over meta-seeds, and what y is worth.

    Args:
        frame: evaluations with columns ``method`` (``best``, ``a2c``, ...), ``threshold`` and, where it is
            known, ``floor``: the environment steps to the threshold that no learner can beat.

    Returns:
        Rows ``set, quantity, value, value_low, value_high, n_seeds, n_tasks, interval``; what cannot be said
        (no A2C, no threshold, no ablated set) has no row.
    """
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(frame["set"]):
        if str(name).endswith(ABLATED):
            continue
        best, a2c = _lives(frame, name, "best"), _lives(frame, name, "a2c")
        if best is None:
            continue
        threshold = float(frame.loc[frame["set"] == name, "threshold"].iloc[0])
        if a2c is not None:
            rows += _against_a2c(name, best, a2c, threshold)
        if np.isfinite(threshold):
            rows += _against_floor(frame, name, best, threshold)
            rows.append(_success(name, best, threshold))
        rows += _ablation(name, best, _lives(frame, f"{name}{ABLATED}", "best"))
        rows += _probe(frame, name)
    columns = ["set", "quantity", "value", "value_low", "value_high", "n_seeds", "n_tasks", "interval"]
    return pd.DataFrame(rows, columns=columns)


def _against_a2c(name: str, best: Lives, a2c: Lives, threshold: float) -> list[dict[str, Any]]:
    if best.end.shape[1] != a2c.end.shape[1]:
        return []
    paired = f"{_BOTH}, tasks in pairs"
    rows = [_row(name, "return / a2c's return", statistics.paired_ratio(best.end, a2c.end), best, paired)]
    if np.isfinite(threshold):
        steps = statistics.paired_ratio(a2c.steps_to(threshold)[0], best.steps_to(threshold)[0])
        rows.append(_row(name, f"a2c's steps to {threshold:g} / its steps", steps, best, paired))
    return rows


def _against_floor(frame: pd.DataFrame, name: str, best: Lives, threshold: float) -> list[dict[str, Any]]:
    floors = frame.loc[frame["set"] == name, "floor"] if "floor" in frame else pd.Series(dtype=float)
    if floors.empty or not np.isfinite(floors.iloc[0]):
        return []
    ratio = statistics.crossed_bootstrap(best.steps_to(threshold)[0] / float(floors.iloc[0]))
    return [_row(name, f"its steps to {threshold:g} / the floor", ratio, best, _BOTH)]


def _ablation(name: str, best: Lives, ablated: Lives | None) -> list[dict[str, Any]]:
    """The return with a constant y, and the loss: seed by seed and task by task."""
    if ablated is None or ablated.end.shape[1] != best.end.shape[1]:
        return []
    without = _row(
        name, "return when y is constant", statistics.crossed_bootstrap(ablated.end), ablated, _BOTH
    )
    both = [seed for seed in best.seeds if seed in ablated.seeds]
    if not both:
        return [without]
    lost = best.end[[best.seeds.index(s) for s in both]] - ablated.end[[ablated.seeds.index(s) for s in both]]
    paired = f"{_BOTH}, both in pairs"
    row = _row(name, "return lost when y is constant", statistics.crossed_bootstrap(lost), best, paired)
    return [without, row | {"n_seeds": len(both)}]


def _probe(frame: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    rows = []
    for metric, quantity in _PROBED.items():
        wanted = (frame["set"] == name) & (frame["method"] == "best") & (frame["metric"] == metric)
        values = frame.loc[wanted, "value"].to_numpy(np.float64)
        if np.isfinite(values).any():
            found = statistics.t_interval(values[np.isfinite(values)])
            row = _cells(name, quantity, found) | {
                "n_seeds": int(np.isfinite(values).sum()),
                "n_tasks": np.nan,
            }
            rows.append(row | {"interval": "95 % Student t over seeds"})
    return rows


def _success(name: str, best: Lives, threshold: float) -> dict[str, Any]:
    tries = best.end.shape[0] + best.left_out
    rate = statistics.wilson_interval(int((best.end.mean(axis=1) >= threshold).sum()), tries)
    row = _row(name, f"meta-seeds that reach {threshold:g}", rate, best, "95 % Wilson over meta-seeds")
    return row | {"n_seeds": tries}


def _lives(frame: pd.DataFrame, name: str, method: str) -> Lives | None:
    wanted = (frame["set"] == name) & (frame["method"] == method) & (frame["metric"] == "return")
    rows: Any = frame[wanted]
    lives = None if rows.empty else last_lives(rows)
    return lives if lives is not None and lives.returns.size else None


def _row(name: str, quantity: str, interval: Interval, lives: Lives, kind: str) -> dict[str, Any]:
    sizes = {"n_seeds": lives.end.shape[0], "n_tasks": lives.end.shape[1]}
    return _cells(name, quantity, interval) | sizes | {"interval": kind}


def _cells(name: str, quantity: str, interval: Interval) -> dict[str, Any]:
    value, low, high = (float(part) for part in interval)
    return {"set": name, "quantity": quantity, "value": value, "value_low": low, "value_high": high}
