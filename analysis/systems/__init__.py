"""What each system's sweeps are judged by: one ``score(frame)`` a system.

A score takes the frame of ``scoring_frame`` and returns rows ``set, quantity, value, value_low, value_high,
n_seeds, n_tasks, interval``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import SweepData, records
from analysis.lives import threshold_of
from analysis.summaries import floors, methods, set_names

__all__ = ["SCORES", "score_of", "scoring_frame"]

SCORES = {"lpg": "analysis.systems.lpg", "datarater": "analysis.systems.datarater"}
"""Name of an inner loop or of its update rule to the module that scores it."""


def score_of(config: Mapping[str, Any]) -> tuple[str, Callable[[pd.DataFrame], pd.DataFrame]] | None:
    """The system of a sweep and its score; None: it has none of its own."""
    inner = config.get("inner") or {}
    rule = inner.get("rule") or {}
    for name in (rule.get("kind"), inner.get("kind")):
        if name in SCORES:
            return name, importlib.import_module(SCORES[name]).score
    return None


def scoring_frame(data: SweepData) -> pd.DataFrame:
    """The evaluations of best point and baselines, with columns ``method``, ``threshold`` and ``floor``."""
    keys = {method.run_id: method.key for method in methods(data)}
    frame: Any = data.evaluations
    chosen = frame[frame["run_id"].isin(list(keys))]
    # In the report's order of sets; those of a later meta-test come last.
    order = {name: place for place, name in enumerate(set_names(data))}
    chosen = chosen.iloc[np.argsort(chosen["set"].map(order).fillna(len(order)), kind="stable")]
    thresholds = {name: threshold_of(data, str(name)) for name in chosen["set"].unique()}
    lowest = {row["set"]: row["steps"] for row in records(floors(data))}
    return chosen.assign(
        method=chosen["run_id"].map(keys),
        threshold=chosen["set"].map(thresholds).astype("float64"),
        floor=chosen["set"].map(lowest).astype("float64"),
    )
