"""DataRater (Calian et al. 2025, arXiv:2505.17895): do ratings find what is corrupted, and is it worth it?

Ratings are read from sets whose learner rates (metrics ``rating/...``). What a judge's choice is worth is
read from sets of fresh models that differ in their selection alone: ``everything`` is the data as it is,
``oracle`` the clean part of it, and every other set with a curve of several assessments is a judge between
the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.lives import Lives, last_lives
from analysis.statistics import Floats

__all__ = ["EVERYTHING", "ORACLE", "RATED", "curves_of", "levels_of", "score"]

EVERYTHING, ORACLE = "everything", "oracle"
RATED = "rating/"  # before the names of the ratings' own metrics
_T = "95 % Student t over seeds"
_NAMED = {
    "rating/spearman": "rank correlation of rating and cleanness",
    "rating/auc": "area under the curve, clean against the rest",
    "rating/auc_mildest": "area under the curve, clean against the mildest level",
}


def score(frame: pd.DataFrame) -> pd.DataFrame:
    """How good the ratings are; final losses, steps saved and gap to the oracle closed, by judge.

    Args:
        frame: evaluations with the column ``method``; the best point's rows are scored.

    Returns:
        Rows ``set, quantity, value, value_low, value_high, n_seeds, n_tasks, interval``; what cannot be said
        has no row.
    """
    best = frame[frame["method"] == "best"]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(best["set"]):
        rows += _ratings(str(name), best[best["set"] == name])  # pyright: ignore[reportArgumentType]
    curves = curves_of(best)  # pyright: ignore[reportArgumentType]
    for name, lives in curves.items():
        rows += _judge(name, lives, curves)
    columns = ["set", "quantity", "value", "value_low", "value_high", "n_seeds", "n_tasks", "interval"]
    return pd.DataFrame(rows, columns=columns)


def curves_of(frame: pd.DataFrame) -> dict[str, Lives]:
    """The lives of every set that was assessed along life, by name; returns are minus losses."""
    returns: Any = frame[frame["metric"] == "return"]
    found = {str(name): last_lives(rows) for name, rows in returns.groupby("set", sort=False)}
    return {name: lives for name, lives in found.items() if lives.returns.size and lives.returns.shape[2] > 2}


def levels_of(frame: pd.DataFrame) -> list[tuple[float, str]]:
    """Corruption levels that were rated, in rising order, and the beginning of their metrics' names."""
    names = {str(name).rpartition("/")[0] for name in frame["metric"].unique() if "/level_" in str(name)}
    return sorted((float(name.rpartition("_")[2]), name) for name in names)


def _ratings(name: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    several = [str(m) for m in rows["metric"].unique() if str(m).startswith("rating/auc/")]
    kinds = {metric: f"area under the curve, clean against {metric.split('/')[-1]}" for metric in several}
    for metric, quantity in {**_NAMED, **kinds}.items():
        values = _last(rows, metric)
        if values.size:
            found.append(_row(name, quantity, values))
    means = [_last(rows, f"{beginning}/mean") for _, beginning in levels_of(rows)]
    if len(means) > 1:
        ordered = np.all(np.diff(np.stack(means), axis=0) < 0, axis=0)
        interval = statistics.wilson_interval(int(ordered.sum()), ordered.size)
        row = _row(name, "seeds whose mean rating falls with every level", ordered.astype(float))
        found.append(row | _ends(interval) | {"interval": "95 % Wilson over seeds"})
    return found


def _judge(name: str, lives: Lives, curves: Mapping[str, Lives]) -> list[dict[str, Any]]:
    losses = _losses(lives)
    rows = [_row(name, "final loss", losses[:, -1])]
    plain, oracle = curves.get(EVERYTHING), curves.get(ORACLE)
    if plain is None or name == EVERYTHING or plain.seeds != lives.seeds:
        return rows
    target = _losses(plain)[:, -1]
    share = [_reached(lives.env_steps, *pair) for pair in zip(losses, target, strict=True)]
    rows.append(_row(name, "its steps to the final loss of everything / all steps", np.asarray(share)))
    if oracle is not None and name != ORACLE and oracle.seeds == lives.seeds:
        gap = target - _losses(oracle)[:, -1]
        rows.append(
            _row(name, "share of the gap to the oracle that it closes", (target - losses[:, -1]) / gap)
        )
    return rows


def _losses(lives: Lives) -> Floats:
    """[S, U] mean over the lives of a seed."""
    return -lives.returns.mean(axis=1)


def _reached(steps: Floats, losses: Floats, target: float) -> float:
    """The share of all steps after which a loss is down at the target; 1 if it never is."""
    below = np.flatnonzero(losses <= target)
    return float(steps[below[0]] / steps[-1]) if below.size else 1.0


def _last(rows: pd.DataFrame, metric: str) -> Floats:
    """[S] a metric's value at the last assessment, mean over lives."""
    mine = rows[(rows["metric"] == metric) & (rows["update"] == rows["update"].max())]
    return mine.groupby("seed")["value"].mean().to_numpy(np.float64)  # pyright: ignore


def _row(name: str, quantity: str, values: Floats) -> dict[str, Any]:
    cells = {"set": name, "quantity": quantity} | _ends(statistics.t_interval(values))
    return cells | {"n_seeds": values.size, "n_tasks": np.nan, "interval": _T}


def _ends(interval: Sequence[Any]) -> dict[str, float]:
    return dict(zip(("value", "value_low", "value_high"), map(float, interval), strict=True))
