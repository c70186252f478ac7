"""Students of learning histories: learning curves in context beside the source's, and likelihoods."""

from __future__ import annotations

import numpy as np

from analysis import statistics
from analysis.distillation import Learner, distilled_sets, learners_on, optimum_of, values_in_words
from analysis.frames import NLL_SERIES, SweepData
from analysis.objectives import FINISHED
from analysis.plots.panels import BESIDE_STYLES, CYCLE, GREY, STYLES, Line, Panel, Rule, thinned
from analysis.plots.pictures import Picture, picture_of
from analysis.points import best_row

__all__ = ["by_set", "in_context", "likelihoods"]

_DASHES = ("solid", "dashed", "long", "dotted", "dashdot")
_UPDATES = "inner updates of the life"
_RETURN = "return of an episode"


def in_context(data: SweepData) -> Picture | None:
    """Points and baselines on every set that both met, over the life; None: nobody was assessed along one."""
    panels = []
    for name in distilled_sets(data):
        learners = learners_on(data, name)
        if all(one.is_point for one in learners):
            continue  # beside nobody: see ``by_set``
        lines = [_line(one, *_style(one, index)) for index, one in enumerate(learners)]
        rules = _optimum(data, name)
        panels.append(Panel(f"set {name}", _UPDATES, _RETURN, lines, rules, log_x=True))
    if not panels:
        return None
    caption = (
        "Weights frozen, context empty at birth: mean over the tasks, band: 95 % bootstrap interval over "
        "seeds (none with one seed). A baseline that lives longer on a set of its own with the same tasks is "
        "drawn with that life."
    )
    return picture_of("in_context", "Learning in context", caption, panels)


def by_set(data: SweepData) -> Picture | None:
    """The best point's life on all sets in one panel; None: it met fewer than two."""
    best = best_row(data)
    if best is None:
        return None
    label = values_in_words(data, best)
    lines, rules = [], []
    for name in distilled_sets(data):
        mine = [one for one in learners_on(data, name) if one.is_point and one.label == label]
        for one in mine:
            index = len(lines)
            style = BESIDE_STYLES[index % len(BESIDE_STYLES)], _DASHES[index % len(_DASHES)]
            lines.append(_line(one, *style, label=name))
        rules = rules or _optimum(data, name)
    if len(lines) < 2:
        return None
    caption = (
        "The best point on every set: other tasks, other temperatures, another context. The horizontal line "
        "is the first set's optimum."
    )
    panel = Panel("best point", _UPDATES, _RETURN, lines, rules)
    return picture_of("students_by_set", "The best student, set by set", caption, [panel])


def likelihoods(data: SweepData) -> Picture | None:
    """Negative log-likelihood of the first and the last steps of crops, a panel a point; None: not kept."""
    panels = []
    for row in data.rows("point"):
        if row["status"] != FINISHED:
            continue
        lines = []
        for index, (label, metric) in enumerate(NLL_SERIES.items()):
            curve = data.curve(row["run_id"], metric)
            if curve is not None:
                steps, values = curve
                every, means = thinned(values)
                at = steps[: means.shape[1] * every : every][: means.shape[1]].astype(np.float64)
                interval = statistics.interval_over_seeds(means, resamples=500)
                style = CYCLE[index], _DASHES[index]
                lines.append(Line(label, at, *interval, color=style[0], dash=style[1]))
        if lines:
            panels.append(Panel(values_in_words(data, row), "outer steps", "nats", lines))
    if not panels:
        return None
    caption = (
        "Negative log-likelihood of the source's actions in training crops. The gap between the first and "
        "the last steps of a crop is what the context tells of the task."
    )
    return picture_of("likelihoods", "What the context is worth", caption, panels)


def _line(one: Learner, color: str, dash: str, label: str | None = None) -> Line:
    """Without birth, which has no place on a logarithmic axis."""
    lived = one.updates > 0
    interval = statistics.interval_over_seeds(one.curve[:, lived], resamples=1000)
    band = one.returns.shape[0] > 1
    return Line(
        label=one.label if label is None else label,
        x=one.updates[lived],
        y=interval.estimate,
        low=interval.low if band else None,
        high=interval.high if band else None,
        color=color,
        dash=dash,
        width=2.0 if one.is_point else 1.6,
    )


def _style(one: Learner, index: int) -> tuple[str, str]:
    if one.is_point:
        return BESIDE_STYLES[index % len(BESIDE_STYLES)], _DASHES[index % len(_DASHES)]
    if one.label in STYLES:
        return STYLES[one.label]
    return ("#000000", "solid") if one.label == "source" else (GREY, "dotted")


def _optimum(data: SweepData, name: str) -> list[Rule]:
    best = optimum_of(data, name)
    return (
        [] if best is None else [Rule("optimal", float(best.mean()), color=STYLES["optimal"][0], dash="long")]
    )
