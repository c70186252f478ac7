"""LPG (Oh et al. 2020, arXiv:2007.08794): is the learned rule better than A2C, reliably, and does y carry it?

The ablation of y is read from pairs of evaluation sets: a set ``NAME_constant_y`` holds the same tasks as
``NAME`` with y(s_{t+1}) replaced by a constant.
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


def score(frame: pd.DataFrame) -> pd.DataFrame:
    """Ratio to A2C, speed-up over A2C, success rate over meta-seeds, and what y is worth.

    Args:
        frame: evaluations with columns ``method`` (``best``, ``a2c``, ...) and ``threshold``.

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
            rows.append(_success(name, best, threshold))
        ablated = _lives(frame, f"{name}{ABLATED}", "best")
        if ablated is not None and ablated.end.shape == best.end.shape:
            lost = statistics.crossed_bootstrap(best.end - ablated.end)
            rows.append(_row(name, "return lost when y is constant", lost, best, _BOTH))
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
    value, low, high = (float(part) for part in interval)
    row = {"set": name, "quantity": quantity, "value": value, "value_low": low, "value_high": high}
    return row | {"n_seeds": lives.end.shape[0], "n_tasks": lives.end.shape[1], "interval": kind}
