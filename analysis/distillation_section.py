"""The report's section on Algorithm Distillation."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.distillation import LAST_UPDATES, SHARES, SOLVED, distilled_sets, student_table
from analysis.frames import SweepData, records
from analysis.plots import distillation
from analysis.plots.pictures import Picture
from analysis.tables import Table, number, with_interval

__all__ = ["distillation_parts"]


def distillation_parts(data: SweepData) -> tuple[list[str], list[Table], list[Picture]]:
    """Words, tables and pictures: learning in context beside the source, set by set, and likelihoods."""
    tables = [table for name in distilled_sets(data) if (table := _table(data, name)) is not None]
    pictures = [distillation.in_context(data), distillation.by_set(data), distillation.likelihoods(data)]
    shown = [picture for picture in pictures if picture is not None]
    words = [] if tables or shown else ["Nothing was assessed along a life, so there is nothing to draw."]
    return words, tables, shown


def _table(data: SweepData, name: str) -> Table | None:
    frame = student_table(data, name)
    if frame.empty:
        return None
    known = "of_optimum" in frame
    rows = [_cells(row, known) for row in records(frame)]
    columns = ["learner", "return at the end [95 %]"]
    if known:
        columns += ["of the optimum", "tasks solved"]
        for share in SHARES:
            columns += [f"updates to {share:g} of it", "source's / its"]
    sizes = " or ".join(dict.fromkeys(_size(row) for row in records(frame)))
    caption = (
        f"Set `{name}`, n = {sizes} seeds x tasks. The end is the mean of the last {LAST_UPDATES} updates "
        "of a life, or of its last fifth if that is shorter. Intervals of returns and ratios: 95 % bootstrap "
        "over seeds and tasks; of updates: 95 % Student t over seeds, cut at 0."
    )
    if known:
        caption += (
            f" A task is solved by a life that ends with at least {SOLVED:g} of its optimum. Updates: until "
            "the mean over the tasks first reaches that share of the optimum; mean over seeds that reach it."
        )
    strong = [index for index, row in enumerate(records(frame)) if row["point"]]
    return Table(f"students_{name}", caption, columns, rows, frame, strong[:1])


def _cells(row: dict[str, Any], known: bool) -> list[str]:
    cells = [row["learner"], with_interval(row, "end")]
    if known:
        cells += [f"{100 * row['of_optimum']:.0f} %", f"{100 * row['solved']:.0f} %"]
        for share in SHARES:
            cells += _time_cells(row, f"{share * 100:.0f}")
    return cells


def _size(row: dict[str, Any]) -> str:
    return f"{number(row['n_seeds'])} x {number(row['n_tasks'])}"


def _time_cells(row: dict[str, Any], suffix: str) -> list[str]:
    never = int(row[f"never_{suffix}"])
    if not np.isfinite(row.get(f"to_{suffix}", np.nan)):
        return ["never", "-"]
    text = with_interval(row, f"to_{suffix}", 0)
    text += f" ({never} seeds never)" if never else ""
    ratio = row.get(f"faster_{suffix}", np.nan)
    return [text, with_interval(row, f"faster_{suffix}", 1) if np.isfinite(ratio) else "-"]
