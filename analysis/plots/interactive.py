"""Panels as a plotly figure for the report's page. Colours of text and grid are left to the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.plots.panels import Line, Panel, Rule

__all__ = ["draw", "escaped", "finish"]

_DASHES = {"solid": "solid", "dashed": "dash", "long": "longdash", "dotted": "dot", "dashdot": "dashdot"}
_GRID = "rgba(128,128,128,0.25)"
_HEIGHT, _ROW = 360, 38


def draw(panels: Sequence[Panel]) -> Any:
    """A plotly figure with the panels two a row."""
    from plotly.subplots import make_subplots

    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    tall = max(_HEIGHT, *(130 + _ROW * len(panel.y_ticks or ()) for panel in panels))
    gap = 0.0 if rows == 1 else 120 / (tall * rows)
    figure = make_subplots(
        rows, columns, subplot_titles=[escaped(panel.title) for panel in panels],
        horizontal_spacing=_between(panels), vertical_spacing=gap,
    )  # fmt: skip
    shown: set[str] = set()
    for index, panel in enumerate(panels):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        for line in panel.lines:
            figure.add_traces(_traces(line, shown), place["row"], place["col"])
        for rule in panel.rules:
            figure.add_traces([_rule(rule, panel, shown)], place["row"], place["col"])
        _axes(figure, panel, place)
    return finish(figure, max(tall * rows, 190 + 27 * len(shown)))


def _between(panels: Sequence[Panel]) -> float:
    """The share of the width between two columns: room for the names beside the right one."""
    longest = max((len(name) for panel in panels[1::2] for _, name in panel.y_ticks or ()), default=0)
    return min(max(0.14, 0.05 + 0.0085 * longest), 0.35)


def finish(figure: Any, height: float) -> Any:
    """Margins, legend and background that all figures share."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 20, "t": 60, "b": 70},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "rgba(128,128,128,0.5)"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13, "family": "system-ui, sans-serif"},
        legend={"x": 1.02, "y": 1, "xanchor": "left", "yanchor": "top", "font": {"size": 12}},
        hovermode="closest",
    )
    return figure


def escaped(text: str) -> str:
    """Text as it is: plotly would read tags in it."""
    return html.escape(text)


def _traces(line: Line, shown: set[str]) -> list[Any]:
    """The traces of a line: its band first, so that the line lies above."""
    from plotly import graph_objects as go

    common: dict[str, Any] = {"name": escaped(line.label), "legendgroup": escaped(line.label)}
    common["showlegend"] = bool(line.label) and line.label not in shown
    shown.add(line.label)
    if line.style == "bars":
        bar = go.Bar(x=line.x, y=line.y, orientation="h", marker={"color": line.color}, **common)
        return [bar]
    if line.style in ("points", "dots"):
        along = "error_y" if line.style == "points" else "error_x"
        error = {along: _arms(line, line.y if line.style == "points" else line.x)}
        marker = {"color": line.color, "size": 9}
        return [go.Scatter(x=line.x, y=line.y, mode="markers", marker=marker, **error, **common)]
    stroke = {"color": line.color, "dash": _DASHES[line.dash], "width": line.width + 0.4}
    depth = 0 if line.behind else 1
    drawn = go.Scatter(x=line.x, y=line.y, mode="lines", line=stroke, zorder=depth, **common)
    return [*_band(line), drawn]


def _band(line: Line) -> list[Any]:
    from plotly import graph_objects as go

    if line.low is None or line.high is None:
        return []
    sound = np.isfinite(line.low) & np.isfinite(line.high)
    around = np.concatenate([line.x[sound], line.x[sound][::-1]])
    edge = np.concatenate([line.high[sound], line.low[sound][::-1]])
    return [
        go.Scatter(
            x=around, y=edge, fill="toself", fillcolor=_rgba(line.color), line={"width": 0}, mode="lines",
            hoverinfo="skip", showlegend=False, legendgroup=escaped(line.label),
        )
    ]  # fmt: skip


def _rgba(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _arms(line: Line, centre: np.ndarray) -> dict[str, Any]:
    if line.low is None or line.high is None:
        return {"visible": False}
    above, below = np.nan_to_num(line.high - centre), np.nan_to_num(centre - line.low)
    return {"type": "data", "array": above, "arrayminus": below, "symmetric": False, "color": line.color}


def _rule(rule: Rule, panel: Panel, shown: set[str]) -> Any:
    """A rule as a trace over the panel's data, so that it has its entry in the legend."""
    from plotly import graph_objects as go

    # A rule on the y axis spans the lines' x, one on the x axis their y (their intervals included).
    values = [
        v for line in panel.lines for v in ((line.x,) if rule.axis == "y" else (line.y, line.low, line.high))
    ]
    spread = np.concatenate([v for v in values if v is not None] or [np.asarray([0.0, 1.0])])
    span = [float(np.nanmin(spread)), float(np.nanmax(spread))]
    if rule.axis == "x" and panel.y_ticks is not None:
        span = [-0.5, len(panel.y_ticks) - 0.5]  # past all rows of a categorical axis
    at = [rule.value, rule.value]
    first = bool(rule.label) and rule.label not in shown
    shown.add(rule.label)
    return go.Scatter(
        x=span if rule.axis == "y" else at, y=at if rule.axis == "y" else span, mode="lines",
        line={"color": rule.color, "dash": _DASHES[rule.dash], "width": 2}, name=escaped(rule.label),
        legendgroup=escaped(rule.label), showlegend=first,
    )  # fmt: skip


def _axes(figure: Any, panel: Panel, place: dict[str, int]) -> None:
    shared = {"gridcolor": _GRID, "zeroline": False, "automargin": True, "ticks": "outside"}
    x: dict[str, Any] = {"title": {"text": escaped(panel.x_label)}, **shared}
    y: dict[str, Any] = {"title": {"text": escaped(panel.y_label)}, **shared}
    for axis, log, ticks in ((x, panel.log_x, panel.x_ticks), (y, panel.log_y, panel.y_ticks)):
        if log:
            axis |= {"type": "log"}
        if ticks is not None:
            axis |= {"tickvals": [at for at, _ in ticks], "ticktext": [escaped(text) for _, text in ticks]}
    if panel.y_ticks is not None:
        y |= {"range": [len(panel.y_ticks) - 0.5, -0.5]}
    figure.update_xaxes(**x, **place)
    figure.update_yaxes(**y, **place)
