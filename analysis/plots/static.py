"""Panels as a matplotlib figure for papers: readable at column width, legend outside the axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.panels import Line, Panel

__all__ = ["STYLE", "draw", "mathless"]

matplotlib.use("Agg")  # no display where reports are written
STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.facecolor": "white",
}
_DASHES: dict[str, Any] = {
    "solid": "solid", "dashed": "dashed", "long": (0, (9, 3)), "dotted": "dotted", "dashdot": "dashdot",
}  # fmt: skip
_WIDTH, _HEIGHT, _LEGEND = 4.9, 3.5, 2.3  # inches of a panel and of the legend beside it
_CROWDED = 36  # letters below an axis
_ROW = 0.42  # inches of one row of dots or bars


def draw(panels: Sequence[Panel]) -> Figure:
    """A figure with the panels two a row."""
    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    labelled = any(item.label for panel in panels for item in (*panel.lines, *panel.rules))
    tall = max(_HEIGHT, *(1.1 + _ROW * len(panel.y_ticks or ()) for panel in panels))
    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        size = (_WIDTH * columns + (_LEGEND if labelled else 0.0), tall * rows)
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
        grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _legend(figure, grid)
    return figure


def mathless(text: str) -> str:
    """Text as it is: dollars would start mathematics."""
    return text.replace("$", r"\$")


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        _DRAWERS[line.style](axes, line)
    for rule in panel.rules:
        cross = axes.axhline if rule.axis == "y" else axes.axvline
        dash = _DASHES[rule.dash]
        cross(rule.value, color=rule.color, linestyle=dash, linewidth=1.5, label=mathless(rule.label))
    axes.set_title(mathless(panel.title), loc="left")
    axes.set_xlabel(mathless(panel.x_label))
    axes.set_ylabel(mathless(panel.y_label))
    if panel.log_x:
        axes.set_xscale("log")
        _plain_decades(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))  # step counts are long labels for a small panel
    if panel.log_y:
        axes.set_yscale("log")
        _plain_decades(axes.yaxis)
    if panel.x_ticks is not None:
        crowded = sum(len(text) for _, text in panel.x_ticks) > _CROWDED
        turned: dict[str, Any] = {"rotation": 25, "ha": "right"} if crowded else {}
        axes.set_xticks(*_split(panel.x_ticks), **turned)
        axes.set_xlim(-0.5, len(panel.x_ticks) - 0.5)
    if panel.y_ticks is not None:
        axes.set_yticks(*_split(panel.y_ticks))
        axes.set_ylim(len(panel.y_ticks) - 0.5, -0.5)  # the first row on top
        axes.grid(axis="y", visible=False)


def _plain_decades(axis: Any) -> None:
    """Decades as powers of ten; 2 and 5 times them, small, where there are few decades."""
    low, high = axis.get_view_interval()
    steps = (2.0, 5.0) if high / low < 300 else ()
    axis.set_minor_locator(ticker.LogLocator(subs=steps or (2.0, 5.0)))
    axis.set_minor_formatter(ticker.FormatStrFormatter("%g") if steps else ticker.NullFormatter())
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_tick_params(which="minor", labelsize=8)


def _split(ticks: Sequence[tuple[float, str]]) -> tuple[list[float], list[str]]:
    return [place for place, _ in ticks], [mathless(text) for _, text in ticks]


def _line(axes: Axes, line: Line) -> None:
    axes.plot(
        line.x, line.y, color=line.color, linestyle=_DASHES[line.dash], linewidth=line.width,
        label=mathless(line.label), zorder=1 if line.behind else 2,
    )  # fmt: skip
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.18, linewidth=0)


def _points(axes: Axes, line: Line) -> None:
    axes.errorbar(
        line.x, line.y, yerr=_arms(line, line.y), fmt="o", markersize=5.5, color=line.color,
        elinewidth=1.3, capsize=3, label=mathless(line.label),
    )  # fmt: skip


def _dots(axes: Axes, line: Line) -> None:
    axes.errorbar(
        line.x, line.y, xerr=_arms(line, line.x), fmt="o", markersize=7, color=line.color,
        elinewidth=2, capsize=4, label=mathless(line.label),
    )  # fmt: skip


def _bars(axes: Axes, line: Line) -> None:
    axes.barh(line.y, line.x, height=0.62, color=line.color, label=mathless(line.label))
    for place, value in zip(line.y, line.x, strict=True):
        axes.annotate(
            f"{value:.3g}", (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.margins(x=0.14)


def _arms(line: Line, centre: np.ndarray) -> np.ndarray | None:
    """[2, U] lengths below and above; the interval of a bootstrap may miss the estimate by rounding."""
    if line.low is None or line.high is None:
        return None
    return np.nan_to_num(np.clip([centre - line.low, line.high - centre], 0, None))


_DRAWERS = {"line": _line, "points": _points, "dots": _dots, "bars": _bars}


def _legend(figure: Figure, grid: Iterable[Axes]) -> None:
    """One legend for all panels, outside, each label once."""
    entries: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: h for h, label in zip(handles, labels, strict=True) if label not in entries}
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside right upper", handlelength=2.6)
