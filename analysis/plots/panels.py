"""What a picture shows, apart from how it is drawn: panels of lines, points, dots, bars and rules.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; every method also has its own
dash, so that a print in grey is readable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from analysis.statistics import Floats

__all__ = ["BESIDE_STYLES", "CYCLE", "GREY", "STYLES", "Line", "Panel", "Rule", "Ticks", "thinned"]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F",
)  # fmt: skip
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# Colour and dash of the methods that every report has.
STYLES = {
    "best": (BLUE, "solid"),
    "a2c": (VERMILLION, "dashed"),
    "untrained": (PURPLE, "dashdot"),
    "random": (GREY, "dotted"),
    "optimal": (GREEN, "long"),
    "floor": (ORANGE, "dotted"),
}
BESIDE_STYLES = (BLUE, VERMILLION, ORANGE, SKY, "#882255")  # neither the optimum's nor an untrained learner's
_OTHERS = (SKY, ORANGE, "#000000")

Ticks = Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class Line:
    """Data of one thing in a panel.

    Attributes:
        label: its entry in the legend; empty: none.
        x, y: [U].
        low, high: [U] interval, of y (of x for ``dots``); None: no interval is drawn.
        color, dash: ``solid``, ``dashed``, ``long``, ``dotted`` or ``dashdot``.
        style: ``line`` (with a band), ``points`` (with bars), ``dots`` (a row each, interval along x) or
            ``bars`` (a row each, from zero).
        width: of the line.
        behind: below all others.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    color: str = BLUE
    dash: str = "solid"
    style: str = "line"
    width: float = 1.8
    behind: bool = False


@dataclasses.dataclass(frozen=True)
class Rule:
    """A straight reference across a panel, at ``value`` of the axis ``x`` or ``y``."""

    label: str
    value: float
    axis: str = "y"
    color: str = GREY
    dash: str = "dotted"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title, x_label, y_label: text with units.
        lines, rules: what is drawn.
        log_x, log_y: logarithmic axes.
        x_ticks, y_ticks: places and texts of a categorical axis; None: numeric.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    rules: Sequence[Rule] = ()
    log_x: bool = False
    log_y: bool = False
    x_ticks: Ticks | None = None
    y_ticks: Ticks | None = None


def style_of(key: str, others: Sequence[str]) -> tuple[str, str]:
    """Colour and dash of a method; ``others`` are the baselines without a style of their own."""
    if key in STYLES:
        return STYLES[key]
    return _OTHERS[list(others).index(key) % len(_OTHERS)], "dashdot"


def thinned(values: Floats, most: int = 200) -> tuple[int, Floats]:
    """Averages neighbouring columns of ``[S, U]`` until at most ``most`` are left.

    Returns:
        How many columns went into one, and the averages; a rest that fills no column is averaged by itself.
    """
    every = -(-values.shape[1] // most)
    edges = np.arange(0, values.shape[1], every)
    sums = np.add.reduceat(values, edges, axis=1)
    sizes = np.diff(np.append(edges, values.shape[1]))
    return every, sums / sizes
