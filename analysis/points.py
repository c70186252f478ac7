"""A sweep's points: how they ended, what they reached, who is best, and in what they differ."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.frames import SweepData
from analysis.lives import final_lives, threshold_of
from analysis.objectives import FINISHED, Objective, best_rows
from analysis.objectives import objectives as objectives_of_config
from analysis.statistics import Floats

__all__ = [
    "best_row",
    "broken_seeds",
    "config_differences",
    "counts_in_words",
    "front",
    "objective_table",
    "objectives",
    "unfinished",
]

_ENDS = (FINISHED, "pruned", "diverged", "failed")
_SET_METRICS = ("return", "mean_return", "steps_to_threshold", "success")


def objectives(data: SweepData) -> tuple[Objective, ...]:
    """The study's objectives."""
    return objectives_of_config(data.config)


def how_over_seeds(data: SweepData) -> str:
    """How the study makes one number of the seeds'."""
    return (data.config.get("study") or {}).get("over_seeds") or "iqm"


def objective_table(data: SweepData, index: int = 0) -> pd.DataFrame:
    """One row per point, best first: searched values, an objective with its interval over seeds, and n.

    Points that did not finish come last: what they reached earlier does not compare.

    Args:
        data: of the sweep.
        index: of the objective.

    Returns:
        Columns ``run_id, label, number, status``, the searched keys, ``objective`` (the engine's own number,
        aggregated as the study says), ``mean, mean_low, mean_high`` (95 % bootstrap over seeds), ``n_seeds``
        (0: the seeds' own values were not kept), ``n_diverged``.
    """
    return _objective_table(data, index)


@functools.lru_cache(maxsize=8)
def _objective_table(data: SweepData, index: int) -> pd.DataFrame:
    asked = objectives(data)[index]
    rows = data.rows("point")
    values = [_values_of_seeds(data, run, asked) for run in rows]
    frame = pd.DataFrame(
        {
            "run_id": [run["run_id"] for run in rows],
            "label": [run["label"] for run in rows],
            "number": [run["number"] for run in rows],
            "status": [run["status"] for run in rows],
            **{key: [run[key] for run in rows] for key in data.searched},
            "objective": np.asarray([run.get(asked.column, np.nan) for run in rows], np.float64),
            **_intervals(values),
            "n_seeds": [int(np.isfinite(own).sum()) for own in values],
            "n_diverged": [int((~np.isfinite(own)).sum()) for own in values],
        }
    )
    sign = 1.0 if asked.direction == "minimize" else -1.0
    keys = [
        frame["number"],
        sign * frame["objective"],
        frame["objective"].isna(),
        frame["status"] != FINISHED,
    ]
    return frame.iloc[np.lexsort(keys)].reset_index(drop=True)


def front(data: SweepData) -> list[Mapping[str, Any]]:
    """Rows of ``SweepData.runs``, best first: the Pareto front; with one objective all finished points."""
    return best_rows(data.config, data.rows("point"))


def best_row(data: SweepData) -> Mapping[str, Any] | None:
    """The best point's row; of several objectives the front's best in the first; None: there is none."""
    return next(iter(front(data)), None)


def counts_in_words(data: SweepData) -> str:
    """For example ``12 points: 9 finished, 3 pruned; 3 seeds each; 4 baselines``."""
    points, baselines = data.rows("point"), data.rows("baseline")
    counts = Counter(str(row["status"]) for row in points)
    order = [*_ENDS, *(status for status in counts if status not in _ENDS)]
    ended = ", ".join(f"{counts[status]} {status}" for status in order if counts[status])
    parts = [_count(len(points), "point") + (f": {ended}" if ended else "")]
    if "seeds" in data.config:
        parts.append(f"{_count(int(data.config['seeds']), 'seed')} each")
    if baselines:
        parts.append(_count(len(baselines), "baseline"))
    if data.superseded:
        parts.append(f"{_count(data.superseded, 'earlier run')} of points that were run again left aside")
    return "; ".join(parts)


def unfinished(data: SweepData) -> pd.DataFrame:
    """Points and baselines that did not finish: ``label, status, step, reason``.

    The step is the last that was logged, or what the engine noted of a run that logged nothing.
    """
    noted = {str(one["who"]): one for one in data.hardware.get("endings", ())}
    steps: Any = data.series.groupby("run_id")["step"].max()
    last = steps.to_dict()
    rows = []
    for run in data.run_rows:
        if run["status"] != FINISHED:
            who = run["label"] if run["kind"] == "point" else f"baseline {run['label']}"
            known = noted.get(who, {})
            step = last.get(run["run_id"], known.get("step"))
            reason = _last_line(run["reason"]) or known.get("reason", "")
            rows.append({"label": run["label"], "status": run["status"], "step": step, "reason": reason})
    return pd.DataFrame(rows, columns=["label", "status", "step", "reason"])


def broken_seeds(data: SweepData) -> pd.DataFrame:
    """Seeds that left the finite numbers while their point went on: ``label, seed, step``."""
    rows = [
        {"label": run["label"], "seed": seed, "step": step}
        for run in data.run_rows
        if run["status"] != "diverged"
        for seed, step in (json.loads(run["diverged"]) or {}).items()
    ]
    return pd.DataFrame(rows, columns=["label", "seed", "step"])


def config_differences(data: SweepData) -> pd.DataFrame:
    """Parameters (rows) in which the points (columns) differ, as text; empty: the points are alike.

    A point that could not even be begun has its searched values alone, and is left out.
    """
    rows = {row["run_id"]: row["label"] for row in data.rows("point")}
    frame: Any = data.parameters.reindex(list(rows))
    shared = [name for name in frame.columns if not _is_searched(str(name), data.searched)]
    begun = frame[shared].notna().any(axis=1)
    frame = (frame[begun] if begun.any() else frame).rename(index=rows).T.fillna("-")
    return frame[frame.nunique(axis=1) > 1] if frame.shape[1] > 1 else frame.iloc[:0]


def _values_of_seeds(data: SweepData, run: dict[str, Any], asked: Objective) -> Floats:
    """[S] an objective of every seed; [0]: the seeds' own values were not kept."""
    curve = data.curve(run["run_id"], asked.name)
    if curve is not None:
        return _reduced(curve[1], data.config.get("study") or {}, asked.direction)
    parts = asked.name.split("/")
    in_a_set = len(parts) == 3 and parts[0] in ("evaluation", "final")
    return _set_values(data, run["run_id"], parts[1], parts[2]) if in_a_set else np.empty(0)


def _reduced(curve: Floats, study: Any, direction: str) -> Floats:
    """[S] of a curve [S, n], as the study takes it over the steps; NaN where what counts holds one."""
    how = study.get("reduce") or "last"
    if how == "last":
        return curve[:, -1]
    if how == "mean":
        return curve[:, -math.ceil(study.get("last_fraction", 0.1) * curve.shape[1]) :].mean(axis=1)
    worst = -np.inf if direction == "maximize" else np.inf
    known = np.where(np.isfinite(curve), curve, worst)
    best = known.max(axis=1) if direction == "maximize" else known.min(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def _set_values(data: SweepData, run_id: str, name: str, metric: str) -> Floats:
    """[S] a set metric of every seed, NaN for one that broke down; [0] where the set was not run."""
    lives = final_lives(data, run_id, name)
    if lives is None or metric not in _SET_METRICS:  # such as those of a probe: one value a seed
        rows: Any = data.evaluation_groups.get((run_id, name, metric))
        return np.empty(0) if rows is None else rows.groupby("seed")["value"].mean().to_numpy(np.float64)
    threshold = threshold_of(data, name)
    if metric == "return":
        values = lives.end
    elif metric == "mean_return":
        values = lives.mean
    elif threshold is None:
        return np.empty(0)
    else:
        steps, solved = lives.steps_to(threshold)
        values = steps if metric == "steps_to_threshold" else solved.astype(np.float64)
    return np.concatenate([values.mean(axis=1), np.full(lives.left_out, np.nan)])


def _intervals(values: list[Floats]) -> dict[str, Floats]:
    """``mean, mean_low, mean_high`` of every point; points of one number of seeds in one bootstrap."""
    found = {name: np.full(len(values), np.nan) for name in ("mean", "mean_low", "mean_high")}
    sizes = np.asarray([own.size for own in values])
    for size in np.unique(sizes[sizes > 0]):
        (places,) = np.nonzero(sizes == size)
        interval = statistics.interval_over_seeds(np.stack([values[place] for place in places], axis=1))
        for name, column in zip(found, interval, strict=True):
            found[name][places] = column
    return found


def _is_searched(name: str, searched: tuple[str, ...]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in searched)


def _last_line(text: Any) -> str:
    """Of a traceback what it ends with."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
