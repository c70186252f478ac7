"""From a sweep's frames to the numbers of its report: who is best, how good, with which interval.

Points and baselines are compared on the same tasks. Every interval says what it is over.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.frames import SweepData
from analysis.lives import Lives, final_lives, threshold_of
from analysis.points import best_row
from analysis.statistics import Floats, Interval
from metalab.sweep.overview import selection_of

__all__ = [
    "Method",
    "best_point",
    "headline_table",
    "meta_test_sets",
    "methods",
    "normalised_scores",
    "normalised_table",
    "reference",
    "set_names",
    "threshold_table",
]

RESERVED = ("untrained", "random", "optimal", "floor")


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the tables: the best point or a baseline.

    Attributes:
        key: ``best`` or the baseline's name.
        label: as printed.
        run_id: of its MLflow run.
    """

    key: str
    label: str
    run_id: str


def set_names(data: SweepData) -> tuple[str, ...]:
    """Evaluation sets in the sweep file's order: held-out first, the selection set last."""
    named = list(data.config.get("evaluation", {}).get("sets", {}))
    seen = [str(name) for name in data.evaluations["set"].unique()]
    order = [name for name in named if name in seen] if named else seen
    select = selection_set(data)
    return tuple(sorted(order, key=lambda name: name == select))


def meta_test_sets(data: SweepData) -> list[str]:
    """Suites in the store that the sweep file does not name: those of ``metalab evaluate``."""
    named = data.config.get("evaluation", {}).get("sets", {})
    if not named:
        return []
    logged = [c.split("/")[1] for c in data.runs.columns if c.startswith("final/") and c.count("/") >= 2]
    seen = [*logged, *(str(name) for name in data.evaluations["set"].unique())]
    return [name for name in dict.fromkeys(seen) if name not in named]


def selection_set(data: SweepData) -> str | None:
    """The set whose return picks the best point."""
    return selection_of(data.config)


def best_point(data: SweepData) -> Method | None:
    """The finished point with the best objective, of several the first; None: none has finite ones."""
    row = best_row(data)
    return None if row is None else Method("best", f"best point ({row['label']})", row["run_id"])


def methods(data: SweepData) -> list[Method]:
    """Best point, then baselines: tuned ones, then untrained, random and optimal (``floor`` is a line)."""
    named = {str(run["label"]): str(run["run_id"]) for run in data.rows("baseline")}
    order = [name for name in named if name not in RESERVED]
    order += [name for name in RESERVED if name in named and name != "floor"]
    best = best_point(data)
    first = [best] if best else []
    tuned = {name: f"{name} (tuned)" for name in data.settings}
    return first + [Method(name, tuned.get(name, name), named[name]) for name in order]


def reference(data: SweepData) -> Method | None:
    """What ratios are taken to: ``a2c``, else the first baseline that is a learner of its own."""
    others = [m for m in methods(data) if m.key != "best" and m.key not in RESERVED]
    return next((m for m in others if m.key == "a2c"), others[0] if others else None)


@functools.lru_cache(maxsize=4)
def headline_table(data: SweepData, sets: tuple[str, ...]) -> pd.DataFrame:
    """Sets by methods: returns with 95 % bootstrap intervals over seeds and tasks, ratio to the reference.

    Columns: ``set, method, label, n_seeds, n_tasks, left_out, interval``, then ``return``, ``iqm``,
    ``over_life``, ``ratio``, ``improves`` each with ``_low`` and ``_high``, and ``t_low, t_high`` (t interval
    of the mean return over seeds alone).
    """
    base = reference(data)
    rows = []
    for name in sets:
        against = final_lives(data, base.run_id, name) if base else None
        for method in methods(data):
            lives = final_lives(data, method.run_id, name)
            cells = _logged_cells(data, method, name) if lives is None else _measured_cells(lives)
            if cells is None:
                continue
            row = {"set": name, "method": method.key, "label": method.label} | cells
            if lives is not None and against is not None and base and method.key != base.key:
                row |= _against(lives.end, against.end)
            rows.append(row)
    return pd.DataFrame(rows)


def threshold_table(data: SweepData, sets: Sequence[str]) -> pd.DataFrame:
    """Sets with a threshold by methods: steps to hold it, speed-up over the reference, success rates.

    Columns: ``set, method, label, threshold, n_seeds, n_tasks``, ``steps`` and ``speedup`` (reference's steps
    over the method's) with ``_low, _high`` (95 % bootstrap over seeds and tasks, tasks paired), ``censored``
    (share of lifetimes that never hold it and count with their whole length), ``solved_seeds`` (meta-seeds
    whose mean end-of-life return is at or above the threshold), ``success``, ``success_low``,
    ``success_high`` (Wilson over meta-seeds).
    """
    base = reference(data)
    rows = []
    for name in sets:
        threshold = threshold_of(data, name)
        if threshold is None:
            continue
        against = final_lives(data, base.run_id, name) if base else None
        for method in methods(data):
            lives = final_lives(data, method.run_id, name)
            # Without a life (random, optimal: one assessment) there are no steps to count.
            if lives is None or lives.returns.size == 0 or len(lives.env_steps) < 2:
                continue
            row = {"set": name, "method": method.key, "label": method.label, "threshold": threshold}
            row |= _threshold_cells(lives, threshold)
            if against is not None and base and method.key != base.key and _matches(lives, against):
                ratio = statistics.paired_ratio(against.steps_to(threshold)[0], lives.steps_to(threshold)[0])
                row |= _named("speedup", ratio)
            rows.append(row)
    return pd.DataFrame(rows)


def normalised_scores(data: SweepData, name: str) -> dict[Method, Floats]:
    """[S, P] of each learning method: 0 at the random policy's return, 1 at the optimum, task by task.

    Empty where the set lacks ``random`` or ``optimal``, or where a task's two references are equal.
    """
    known = {method: final_lives(data, method.run_id, name) for method in methods(data)}
    ends = {m: lives.end for m, lives in known.items() if lives is not None and lives.returns.size}
    low = next((end.mean(axis=0) for method, end in ends.items() if method.key == "random"), None)
    high = next((end.mean(axis=0) for method, end in ends.items() if method.key == "optimal"), None)
    if low is None or high is None or low.shape != high.shape or (high <= low).any():
        return {}
    learners = {m: end for m, end in ends.items() if m.key not in ("random", "optimal")}
    return {m: (end - low) / (high - low) for m, end in learners.items() if end.shape[1:] == low.shape}


def normalised_table(data: SweepData, sets: Sequence[str]) -> pd.DataFrame:
    """Sets by methods: IQM and optimality gap of the normalised scores with 95 % bootstrap intervals."""
    rows = []
    for name in sets:
        for method, scores in normalised_scores(data, name).items():
            row = {"set": name, "method": method.key, "label": method.label}
            row |= {"n_seeds": scores.shape[0], "n_tasks": scores.shape[1]}
            row |= _named("iqm", statistics.crossed_bootstrap(scores, statistics.iqm))
            gap = statistics.crossed_bootstrap(scores, statistics.optimality_gap)
            rows.append(row | _named("gap", gap))
    return pd.DataFrame(rows)


def _measured_cells(lives: Lives) -> dict[str, Any] | None:
    if lives.returns.size == 0:
        return None
    end = lives.end
    spread = statistics.t_interval(end.mean(axis=1))
    cells: dict[str, Any] = {
        "n_seeds": end.shape[0],
        "n_tasks": end.shape[1],
        "left_out": lives.left_out,
        "interval": _over(end.shape),
        "t_low": float(spread.low),
        "t_high": float(spread.high),
    }
    cells |= _named("return", statistics.crossed_bootstrap(end))
    cells |= _named("iqm", statistics.crossed_bootstrap(end, statistics.iqm))
    return cells | _named("over_life", statistics.crossed_bootstrap(lives.mean))


def _over(shape: tuple[int, ...]) -> str:
    """What an interval of this score matrix is over."""
    names = [name for name, size in zip(("seeds", "tasks"), shape, strict=True) if size > 1]
    return f"95 % bootstrap over {' and '.join(names)}" if names else "none: one seed, one task"


def _logged_cells(data: SweepData, method: Method, name: str) -> dict[str, Any] | None:
    """The run's own ``final/<set>/return`` where no lives were kept (a baseline that is a number)."""
    run = next(row for row in data.rows("point") + data.rows("baseline") if row["run_id"] == method.run_id)
    key = f"final/{name}/return"
    value = run.get(key)
    if value is None or not np.isfinite(value):
        return None
    low, high = run.get(f"{key}_low", np.nan), run.get(f"{key}_high", np.nan)
    kind = "as logged" if np.isfinite(low) else "none logged"
    return {
        "n_seeds": data.config.get("seeds", np.nan),
        "n_tasks": np.nan,
        "left_out": 0,
        "interval": kind,
        "return": float(value),
        "return_low": float(low),
        "return_high": float(high),
    }


def _against(scores: Floats, others: Floats) -> dict[str, float]:
    """Ratio to and probability of improvement on the reference, where both met the same tasks."""
    if scores.size == 0 or others.size == 0 or scores.shape[1] != others.shape[1]:
        return {}
    ratio = statistics.paired_ratio(scores, others)
    return _named("ratio", ratio) | _named("improves", statistics.probability_of_improvement(scores, others))


def _threshold_cells(lives: Lives, threshold: float) -> dict[str, Any]:
    steps, solved = lives.steps_to(threshold)
    successes = int((lives.end.mean(axis=1) >= threshold).sum())
    # A seed that broke down did not succeed: it counts among the tries.
    tries = steps.shape[0] + lives.left_out
    cells: dict[str, Any] = {
        "n_seeds": steps.shape[0],
        "n_tasks": steps.shape[1],
        "censored": float(1 - solved.mean()),
        "solved_seeds": f"{successes}/{tries}",
    }
    cells |= _named("steps", statistics.crossed_bootstrap(steps))
    return cells | _named("success", statistics.wilson_interval(successes, tries))


def _matches(lives: Lives, others: Lives) -> bool:
    return others.returns.size > 0 and lives.returns.shape[1] == others.returns.shape[1]


def _named(name: str, interval: Interval) -> dict[str, float]:
    low, high = float(interval.low), float(interval.high)
    return {name: float(interval.estimate), f"{name}_low": low, f"{name}_high": high}


def floors(data: SweepData) -> pd.DataFrame:
    """What a baseline called ``floor`` logged: rows ``set, steps``, no learner can need fewer."""
    rows = []
    for run in data.rows("baseline"):
        for name in set_names(data) if run["label"] == "floor" else []:
            steps = run.get(f"final/{name}/steps_to_threshold", np.nan)
            if np.isfinite(steps):
                rows.append({"set": name, "steps": float(steps)})
    return pd.DataFrame(rows, columns=["set", "steps"])


def meta_test_table(data: SweepData) -> pd.DataFrame:
    """Rows ``suite, label, metric, value, value_low, value_high, n_seeds`` of all runs' logged meta-tests."""
    rows = []
    for suite in meta_test_sets(data):
        prefix = f"final/{suite}/"
        names = [str(c) for c in data.runs.columns if str(c).startswith(prefix)]
        metrics = [name for name in names if not name.endswith(("_low", "_high"))]
        for run in data.run_rows:
            for name in metrics:
                if np.isfinite(run[name]):
                    row = {"suite": suite, "label": run["label"], "metric": name.removeprefix(prefix)}
                    bounds = {f"value_{end}": run.get(f"{name}_{end}", np.nan) for end in ("low", "high")}
                    seeds = {"n_seeds": data.config.get("seeds", np.nan)}
                    rows.append(row | {"value": run[name]} | bounds | seeds)
    return pd.DataFrame(rows)
