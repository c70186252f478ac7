"""Curation: how ratings are spread at every level of corruption, and what models learn from what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.frames import RATING_SERIES, SweepData
from analysis.plots.learning import point_lines
from analysis.plots.panels import CYCLE, Line, Panel
from analysis.plots.pictures import Picture, picture_of
from analysis.points import best_row
from analysis.systems.datarater import curves_of, levels_of

__all__ = ["judges", "ratings"]

_BANDS = (("q5", "q95", "5 % to 95 %"), ("q25", "q75", "25 % to 75 %"))
_DASHES = ("solid", "dashed", "long", "dotted", "dashdot")


def ratings(data: SweepData) -> Picture | None:
    """The best point's ratings by level, and their order as training went; None: there are no ratings."""
    panels = _distributions(_of_best(data))
    lines, _ = point_lines(data, RATING_SERIES)
    if lines:
        words = "rank correlation with cleanness"
        panels.append(Panel("ratings of training batches", "outer steps", words, lines))
    if not panels:
        return None
    caption = (
        "Ratings of held-out examples of the best point's rater, in deviations around their own mean; "
        "quantiles and means averaged over seeds. Beside them the rank correlation of rating and cleanness "
        "within training batches."
    )
    return picture_of("ratings", "Ratings by level of corruption", caption, panels)


def judges(data: SweepData) -> Picture | None:
    """Loss of fresh models against updates and against compute, a line a judge; None: no such sets."""
    frame = _of_best(data)
    # Compute is what models alone report: other sets may have lives too.
    curves = {name: lives for name, lives in curves_of(frame).items() if _compute(frame, name).size}
    if not curves:
        return None
    by_update, by_compute = [], []
    for index, (name, lives) in enumerate(curves.items()):
        losses = statistics.interval_over_seeds(-lives.returns.mean(axis=1))
        line = {
            "label": name,
            "y": losses.estimate,
            "low": losses.low,
            "high": losses.high,
            "color": CYCLE[index % len(CYCLE)],
            "dash": _DASHES[index % len(_DASHES)],
        }
        by_update.append(Line(x=lives.env_steps, **line))
        spent = _compute(frame, name)
        if spent.size == len(lives.env_steps):
            by_compute.append(Line(x=spent, **line))
    panels = [
        Panel("loss by updates", "updates of the model", "validation loss", by_update, log_y=True),
        Panel("loss by compute", "GFLOP, judging included", "validation loss", by_compute, log_y=True),
    ]
    caption = (
        "Validation loss of fresh models on what each judge keeps; mean and 95 % bootstrap interval over "
        "seeds. Compute counts training and the judging of all candidates, but neither meta-training nor the "
        "training of a reference model."
    )
    return picture_of("judges", "What models learn from what is kept", caption, panels)


def _of_best(data: SweepData) -> pd.DataFrame:
    best, frame = best_row(data), data.evaluations
    chosen: Any = frame[frame["run_id"] == (best["run_id"] if best else None)]
    return chosen


def _distributions(frame: pd.DataFrame) -> list[Panel]:
    levels = levels_of(frame)
    if not levels:
        return []
    at = np.asarray([level for level, _ in levels])

    def mean_of(what: str) -> np.ndarray:
        picked = [frame.loc[frame["metric"] == f"{name}/{what}", "value"].mean() for _, name in levels]
        return np.asarray(picked, np.float64)

    lines = [
        Line(
            label,
            at,
            mean_of("q50"),
            mean_of(low),
            mean_of(high),
            color=CYCLE[5 - index],
            width=0.8,
            behind=True,
        )
        for index, (low, high, label) in enumerate(_BANDS)
    ]
    lines += [
        Line("median", at, mean_of("q50"), color=CYCLE[0]),
        Line("mean", at, mean_of("mean"), color=CYCLE[0], dash="dashed"),
    ]
    return [Panel("ratings by level", "level of corruption", "rating, in deviations", lines)]


def _compute(frame: pd.DataFrame, name: str) -> np.ndarray:
    """[U] GFLOP spent at each assessment of a set."""
    rows: Any = frame[(frame["set"] == name) & (frame["metric"] == "compute")]
    return rows.groupby("update")["value"].mean().to_numpy(np.float64)
