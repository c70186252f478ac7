"""What a sweep cost: seconds of compiling and running, compilations, steps per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import SweepData
from analysis.plots.panels import BLUE, ORANGE, Line, Panel
from analysis.plots.pictures import Picture, picture_of

__all__ = ["cost_picture", "cost_table"]


def cost_table(data: SweepData) -> pd.DataFrame:
    """Rows ``what, value``: what was noted of time and work, over all calls, and what follows from it."""
    noted = data.hardware
    seeds, budget = data.config.get("seeds"), (data.config.get("budget") or {}).get("outer_steps")
    rows: list[tuple[str, Any]] = [
        ("points", len(data.rows("point"))),
        ("seeds", seeds),
        ("outer steps of a point", budget),
    ]
    rows += [(text, _size(noted.get(key))) for key, text in _NOTED.items() if key in noted]
    needed, computed, run_s = (noted.get(key) for key in ("needed_steps", "device_steps", "run_s"))
    if needed and computed:
        rows.append(("lane use (steps of points / steps computed)", needed / computed))
    if needed and run_s:
        rows.append(("meta-updates per second (steps of points / seconds of running)", needed / run_s))
    return pd.DataFrame(rows, columns=["what", "value"]).dropna(ignore_index=True)


def cost_picture(data: SweepData) -> Picture | None:
    """Seconds of running and of compiling as bars; None: the engine noted no times."""
    run_s, compile_s = data.hardware.get("run_s"), data.hardware.get("compile_s")
    if run_s is None or compile_s is None:
        return None
    parts = [
        ("chunks and evaluations of points", run_s, BLUE),
        ("compiling, baselines included", compile_s, ORANGE),
    ]
    lines = [
        Line("", np.asarray([float(seconds)]), np.asarray([float(row)]), color=color, style="bars")
        for row, (_, seconds, color) in enumerate(parts)
    ]
    ticks = [(float(row), name) for row, (name, _, _) in enumerate(parts)]
    panel = Panel("", "seconds of wall time", "", lines, y_ticks=ticks)
    return picture_of(
        "cost", "Cost", "Wall time over all calls of the sweep, one measurement (n = 1).", [panel]
    )


_NOTED: Mapping[str, str] = {
    "run_s": "seconds of wall time in chunks and evaluations of points",
    "trace_s": "seconds of tracing, baselines included",
    "compile_s": "seconds of compiling, baselines included",
    "needed_steps": "lane steps of points",
    "device_steps": "lane steps computed, empty lanes included",
    "shrinks": "times a pack was narrowed",
    "commits": "commits",
    "programs": "programs in the last call (points of one structure share one)",
    "compilations": "compilations in the last call",
}


def _size(value: Any) -> Any:
    """A number, or how many there are of what was noted one by one."""
    return len(value) if isinstance(value, (list, tuple, Mapping)) else value
