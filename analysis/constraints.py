"""Soft constraints: every life of a sweep by task and method, and what methods differ by, pair by pair.

A life's score is the penalised return ``R - kappa max(0, J_C - beta)`` of its trials, the mean over the last
quarter of the checkpoints. Methods are compared on the same task, seed, initial multiplier and, where both
have one, initial rate; intervals resample seeds within tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis import statistics
from analysis.frames import CONSTRAINED, SweepData
from analysis.objectives import FINISHED
from analysis.statistics import Floats, Interval, stratified_bootstrap

__all__ = [
    "FIXED",
    "METAL",
    "RC",
    "acceptance",
    "binding",
    "by_method",
    "lives_of",
    "method_of",
    "paired",
    "rates_of",
    "tasks_of",
]

METAL, RC, FIXED = "MetaL", "RC", "fixed multiplier"
DECAY = "decay(1000)"
LARGE = 0.01  # initial rates of the multiplier from which on the differences were asked for
LAST = 0.25  # of the checkpoints, which make a life's score
BINDS = 0.2  # shortfall of the unconstrained learner, of what the best fixed multiplier earns
_MEANS = ("score", "return", "overshoot", "cost")  # of a life, over its last checkpoints


def method_of(params: Mapping[str, Any]) -> str:
    """The method that a point's parameters amount to.

    Args:
        params: ``tuned``, ``outer_loss``, ``rate``, ``schedule`` and ``spacing`` of the learner.
    """
    tuned, schedule = tuple(params["tuned"]), [float(entry) for entry in params["schedule"]]
    if tuned:
        known = {("rate",): METAL, ("scale", "offset"): "MeSh", ("shift",): "threshold"}
        name = known.get(tuned, "tuned " + ", ".join(tuned))
        return name if params["outer_loss"] == "critic" else f"{name}, outer value"
    if params["rate"] == 0:
        return FIXED
    falls = -np.diff(schedule)
    if not falls.any():
        return RC
    even = np.allclose(falls, falls[0]) and schedule[0] == 0.0
    return f"decay({params['spacing'] / falls[0]:.0f})" if even else "open loop"


def tasks_of(data: SweepData) -> dict[str, str]:
    """Run id to its task: the kind of the world, and its settings where several tasks are of one kind."""
    own = [str(name) for name in data.parameters.columns if str(name).startswith("tasks.")]
    frame: Any = data.parameters[own].fillna("")
    kinds = frame["tasks.tasks.kind"] if "tasks.tasks.kind" in own else frame["tasks.kind"]
    names = {}
    for kind, rows in frame.groupby(kinds):
        differing = [name for name in own if rows[name].nunique() > 1]
        for run_id, row in rows.iterrows():
            told = [
                f"{name.rpartition('.')[2]} {row[name]}" for name in differing if name != "tasks.wrappers"
            ]
            names[str(run_id)] = ", ".join([str(kind), *told])
    return names


def lives_of(data: SweepData) -> pd.DataFrame:
    """One row a finished life.

    Returns:
        Columns ``run_id, task, method, rate, start, seed``, ``score`` and ``return``, ``overshoot``, ``cost``
        (means over the last quarter of the checkpoints), ``peak`` (the largest multiplier), ``multiplier``
        and ``last_rate`` (at the end). A world with several costs shows its first one's multiplier.
    """
    rows: list[dict[str, Any]] = []
    if "inner.multiplier.rate" not in data.parameters:  # the sweep is of other learners
        return pd.DataFrame(rows)
    tasks = tasks_of(data)
    for run in data.rows("point"):
        if run["status"] != FINISHED:
            continue
        curves = {name: data.curve(run["run_id"], metric) for name, metric in CONSTRAINED.items()}
        values = {name: found[1] for name, found in curves.items() if found is not None}
        if len(values) < len(CONSTRAINED):
            continue
        params = _learner(data, run["run_id"])
        for seed in range(values["score"].shape[0]):
            last = {name: float(_tail(values[name][seed]).mean()) for name in _MEANS}
            ends = {
                "peak": float(values["peak"][seed, -1]),
                "multiplier": float(values["multiplier"][seed, -1]),
                "last_rate": float(values["rate"][seed, -1]),
            }
            who = {"run_id": run["run_id"], "task": tasks[run["run_id"]], "method": method_of(params)}
            setting = {"rate": float(params["rate"]), "start": float(params["start"]), "seed": seed}
            rows.append(who | setting | last | ends)
    columns = [
        "run_id",
        "task",
        "method",
        "rate",
        "start",
        "seed",
        *_MEANS,
        "peak",
        "multiplier",
        "last_rate",
    ]
    return pd.DataFrame(rows, columns=columns)


def rates_of(lives: pd.DataFrame, method: str) -> list[float]:
    """The initial rates that a method ran with, ascending."""
    return sorted({float(rate) for rate in lives.loc[lives["method"] == method, "rate"]})


def paired(lives: pd.DataFrame, method: str, other: str, rates: Sequence[float]) -> Interval | None:
    """How much higher a method scores than another from the same starts; None: they share no cell.

    Args:
        lives: see ``lives_of``.
        method, other: by name.
        rates: initial rates of ``method`` that count.
    """
    values = _pairs(lives, method, other, rates, lambda own, theirs: own["score"] - theirs["score"])
    return None if values.size == 0 else stratified_bootstrap(values)


def by_method(lives: pd.DataFrame) -> pd.DataFrame:
    """One row a method and initial rate: means over tasks and initial multipliers, intervals over seeds.

    Returns:
        Columns ``method, rate, score, score_low, score_high, return, overshoot``, medians ``peak``,
        ``multiplier`` and ``last_rate``, and ``n``, the lives.
    """
    rows = []
    groups: Any = lives.groupby(["method", "rate"], sort=False)
    for (method, rate), group in groups:
        scores = group.pivot_table(index="seed", columns="task", values="score").to_numpy()
        low, high = stratified_bootstrap(scores)[1:]
        means = {name: float(group[name].mean()) for name in _MEANS}
        middles = {name: float(group[name].median()) for name in ("peak", "multiplier", "last_rate")}
        ends = {"score_low": float(low), "score_high": float(high), "n": len(group)}
        rows.append({"method": method, "rate": rate} | means | middles | ends)
    return pd.DataFrame(rows)


def binding(lives: pd.DataFrame) -> pd.DataFrame:
    """One row a task: no constraint beside the best fixed multiplier, by their mean scores.

    The shortfall is a share of what the best one earns before its penalty. Its score is no yardstick: where
    the limit cannot be kept it lies near 0 or below, however much the multiplier helps.

    Returns:
        Columns ``task``, ``none`` (score of multiplier 0), ``best`` and ``best_start``, ``earned`` (return of
        the best), ``shortfall`` (``(best - none) / earned``, with ``_low`` and ``_high``; NaN where that
        is not above 0), ``return``, ``cost`` (of multiplier 0) and ``binds``; empty where multiplier 0 or all
        others were not run.
    """
    fixed: Any = lives[lives["method"] == FIXED]
    rows = []
    for task, group in fixed.groupby("task", sort=False):
        scores: Any = group.pivot_table(index="seed", columns="start", values="score")
        if 0.0 not in scores or len(scores.columns) < 2:
            continue
        start: Any = scores.mean().idxmax()
        returns: Any = group.pivot_table(index="seed", columns="start", values="return")[start]
        share = _share((scores[start] - scores[0.0]).to_numpy(), returns.to_numpy())
        none, best = float(scores[0.0].mean()), float(scores[start].mean())
        free = group[group["start"] == 0.0]
        rows.append(
            {"task": task, "none": none, "best": best, "best_start": float(start)}
            | {"earned": float(returns.mean())}
            | {"return": float(free["return"].mean()), "cost": float(free["cost"].mean())}
            | share
            | {"binds": share["shortfall"] >= BINDS}
        )
    return pd.DataFrame(rows)


def _share(missed: Floats, earned: Floats) -> dict[str, float]:
    """What is missed [S] of what is earned [S]; NaN where that is not above 0."""
    names = ("shortfall", "shortfall_low", "shortfall_high")
    if earned.mean() <= 0.0:
        return dict.fromkeys(names, math.nan)
    # Of means, both resampled together.
    ratio = statistics.paired_ratio(missed[None], earned[None])
    return {name: float(share) for name, share in zip(names, ratio, strict=True)}


def acceptance(lives: pd.DataFrame) -> pd.DataFrame:
    """The figures by which the comparison was to be judged; without MetaL and RC there are none.

    Returns:
        Columns ``figure, value, value_low, value_high, bar`` and ``met``.
    """
    rates = rates_of(lives, METAL)
    if not rates or RC not in set(lives["method"]):
        return pd.DataFrame()
    large, largest = [rate for rate in rates if rate >= LARGE] or rates, rates[-1]
    shown = " and ".join(f"{rate:g}" for rate in large)
    rows = []
    for other, bar in ((RC, 4.0), (DECAY, 2.0)):
        found = paired(lives, METAL, other, large)
        if found is not None:
            name = f"score of {METAL} less {other}'s, initial rates {shown}"
            met = bool(found.estimate >= bar and found.low > 0.0)
            rows.append(_figure(name, found, f">= {bar:g}, interval above 0", met))
    logs = _pairs(lives, METAL, RC, [largest], lambda own, theirs: np.log(own["peak"] / theirs["peak"]))
    peaks = Interval(*(np.exp(part) for part in stratified_bootstrap(logs)))
    name = f"peak multiplier of {METAL} / {RC}'s, initial rate {largest:g}"
    rows.append(_figure(name, peaks, "<= 0.5", bool(peaks.estimate <= 0.5)))
    if len(rates) > 1:
        ratio = _spread_ratio(lives)
        name = f"spread of scores over initial rates, {METAL} / {RC}"
        rows.append(_figure(name, ratio, "<= 0.6", bool(ratio.estimate <= 0.6)))
    return pd.DataFrame(rows)


def _learner(data: SweepData, run_id: str) -> dict[str, Any]:
    """The settings of a point's learner that tell its method."""
    text: Any = data.parameters.loc[run_id]
    numbers = {name: float(text[f"inner.multiplier.{name}"]) for name in ("rate", "start", "spacing")}
    return numbers | {
        "tuned": yaml.safe_load(str(text["inner.tuned"])),
        "outer_loss": str(text["inner.outer_loss"]),
        "schedule": yaml.safe_load(str(text["inner.multiplier.schedule"])),
    }


def _tail(values: Floats) -> Floats:
    return values[-max(1, math.ceil(LAST * values.shape[0])) :]


def _pairs(
    lives: pd.DataFrame,
    method: str,
    other: str,
    rates: Sequence[float],
    compare: Callable[[Any, Any], Any],
) -> Floats:
    """[S, tasks] of a comparison's mean over the cells that both methods have; [0] where there is none."""
    on = ["task", "seed", "start"] + ([] if other == FIXED else ["rate"])
    own: Any = lives[(lives["method"] == method) & lives["rate"].isin(list(rates))]
    both = own.merge(lives[lives["method"] == other], on=on, suffixes=("", "|other"))
    if both.empty:
        return np.empty(0)
    theirs = both.filter(like="|other").rename(columns=lambda name: name.removesuffix("|other"))
    both["compared"] = compare(both, theirs)
    return both.pivot_table(index="seed", columns="task", values="compared").to_numpy()


def _spread_ratio(lives: pd.DataFrame) -> Interval:
    """Largest less smallest mean score over the initial rates, MetaL's over RC's."""
    cubes = [_cube(lives, method) for method in (METAL, RC)]
    seeds, tasks = cubes[0].shape[:2]
    rows = np.random.default_rng(0).integers(0, seeds, (statistics.RESAMPLES, seeds, tasks))

    def spread(cube: Floats) -> Floats:
        means = cube.mean(axis=(-3, -2))
        return means.max(axis=-1) - means.min(axis=-1)

    own, theirs = (spread(cube[rows, np.arange(tasks)]) for cube in cubes)
    if not theirs.all():  # learners that have learned nothing yet score alike
        return Interval(*np.full(3, np.nan))
    low, high = np.quantile(own / theirs, [0.025, 0.975])
    return Interval(spread(cubes[0]) / spread(cubes[1]), low, high)


def _cube(lives: pd.DataFrame, method: str) -> Floats:
    """[S, tasks, rates] mean scores of a method over the initial multipliers."""
    own: Any = lives[lives["method"] == method]
    table = own.pivot_table(index="seed", columns=["task", "rate"], values="score")
    tasks = table.columns.get_level_values("task").nunique()
    return table.to_numpy().reshape(len(table), tasks, -1)


def _figure(name: str, found: Interval, bar: str, met: bool) -> dict[str, Any]:
    value, low, high = (float(part) for part in found)
    return {"figure": name, "value": value, "value_low": low, "value_high": high, "bar": bar, "met": met}
