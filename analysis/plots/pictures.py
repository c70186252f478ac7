"""A picture: one thing that the report shows, drawn for print and for the browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.plots import interactive, static
from analysis.plots.panels import Panel

__all__ = ["Picture", "picture_of"]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        name: of its file, without ending.
        title: headline.
        caption: what is shown, its n and what its intervals are.
        static: matplotlib's figure.
        interactive: plotly's figure.
    """

    name: str
    title: str
    caption: str
    static: Figure
    interactive: Any


def picture_of(name: str, title: str, caption: str, panels: Sequence[Panel]) -> Picture:
    """Draws the panels both ways."""
    return Picture(name, title, caption, static.draw(panels), interactive.draw(panels))
