"""Evaluation sets: learners' lives, ends of life, and the distribution of normalised scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import statistics
from analysis.frames import SweepData, records
from analysis.lives import Lives, final_lives, threshold_of
from analysis.plots.panels import Line, Panel, Rule, style_of
from analysis.plots.pictures import Picture, picture_of
from analysis.summaries import Method, headline_table, methods, normalised_scores

__all__ = ["held_out_returns", "in_life_curves", "profiles"]


def in_life_curves(data: SweepData, sets: Sequence[str]) -> Picture | None:
    """Return against the environment steps of a learner's life, a panel a set; None: no lives were kept."""
    panels, sizes = [], []
    for name in sets:
        lines, rules = [], []
        for method in methods(data):
            lives = final_lives(data, method.run_id, name)
            if lives is None or not lives.returns.size:
                continue
            sizes.append(lives.returns.shape[:2])
            color, dash = _style(data, method)
            if method.key in ("random", "optimal") or len(lives.env_steps) < 2:
                rules.append(Rule(method.label, float(lives.end.mean()), color=color, dash=dash))
            else:
                lines.append(_life(method, lives, color, dash))
        if lines:
            rules += _extra_rules(data, name)
            panels.append(Panel(f"set {name}", "environment steps of the life", "return", lines, rules))
    if not panels:
        return None
    seeds, tasks = (sorted({size[axis] for size in sizes}) for axis in (0, 1))
    caption = (
        f"Fresh learners with the kept meta-parameters: mean over n = {_either(seeds)} seeds x "
        f"{_either(tasks)} tasks; band: 95 % bootstrap interval over seeds, tasks fixed (none with one "
        "seed). Horizontal lines: end-of-life means and the threshold."
    )
    return picture_of("in_life_curves", "Learning within a life", caption, panels)


def held_out_returns(data: SweepData, sets: Sequence[str]) -> Picture | None:
    """A row a method, a panel a set: return at the end of life with its interval; None: no evaluation."""
    table = headline_table(data, tuple(sets))
    if table.empty:
        return None
    panels = []
    for name in dict.fromkeys(table["set"]):
        rows = [row for row in records(table) if row["set"] == name]
        lines = []
        for place, row in enumerate(rows):
            color, _ = _style(data, Method(row["method"], row["label"], ""))
            low, high = (np.asarray([row[f"return_{end}"]]) for end in ("low", "high"))
            at = np.asarray([float(place)])
            lines.append(Line("", np.asarray([row["return"]]), at, low, high, color, style="dots"))
        ticks = [(float(place), row["label"]) for place, row in enumerate(rows)]
        rules = _threshold_rules(data, name, "x")
        panels.append(Panel(f"set {name}", "return at end of life", "", lines, rules, y_ticks=ticks))
    caption = (
        "Mean and 95 % bootstrap interval over seeds and tasks; the n of every row is in the table. Vertical "
        "line: the threshold, where a set has one."
    )
    return picture_of("held_out", "Return at the end of life", caption, panels)


def profiles(data: SweepData, sets: Sequence[str]) -> Picture | None:
    """Share of runs and tasks above each normalised score; None: a set lacks `random` or `optimal`."""
    panels = []
    for name in sets:
        scores = normalised_scores(data, name)
        at = np.linspace(0.0, 1.0, 101)
        lines = []
        for method, matrix in scores.items():
            color, dash = _style(data, method)
            profile = statistics.performance_profile(matrix, at, resamples=1000)
            lines.append(Line(method.label, at, *profile, color=color, dash=dash))
        if lines:
            x_label = "normalised score (0 random, 1 optimal)"
            panels.append(Panel(f"set {name}", x_label, "share of lives above", lines))
    if not panels:
        return None
    caption = (
        "Performance profiles over seeds x tasks; band: 95 % bootstrap interval over seeds and tasks. Scores "
        "are (return - random) / (optimal - random), task by task."
    )
    return picture_of("performance_profiles", "Performance profiles", caption, panels)


def _life(method: Method, lives: Lives, color: str, dash: str) -> Line:
    means = lives.returns.mean(axis=1)
    interval = statistics.interval_over_seeds(means, resamples=1000)
    band = means.shape[0] > 1
    return Line(
        label=method.label,
        x=lives.env_steps,
        y=interval.estimate,
        low=interval.low if band else None,
        high=interval.high if band else None,
        color=color,
        dash=dash,
        width=2.2 if method.key == "best" else 1.8,
    )


def _extra_rules(data: SweepData, name: str) -> list[Rule]:
    """The set's threshold, and the information floor on steps where a baseline `floor` logged one."""
    rules = _threshold_rules(data, name, "y")
    for run in data.rows("baseline"):
        steps = run.get(f"final/{name}/steps_to_threshold", np.nan)
        if run["label"] == "floor" and np.isfinite(steps):
            color, dash = style_of("floor", ())
            rules.append(Rule("floor on steps to threshold", float(steps), "x", color, dash))
    return rules


def _threshold_rules(data: SweepData, name: str, axis: str) -> list[Rule]:
    """The return that counts as solved on a set, across its axis of returns."""
    threshold = threshold_of(data, name)
    if threshold is None:
        return []
    return [Rule(f"threshold {threshold:g}", threshold, axis, color="#000000", dash="dotted")]


def _style(data: SweepData, method: Method) -> tuple[str, str]:
    return style_of(method.key, [m.key for m in methods(data)])


def _either(sizes: Sequence[int]) -> str:
    return " or ".join(str(size) for size in sizes)
