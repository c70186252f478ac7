"""A study's objectives, and which of its points are the best in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from metalab.sweep.overview import objectives_of
from metalab.sweep.reading import best_first

__all__ = ["FINISHED", "Objective", "best_rows", "objectives"]

FINISHED = "finished"


@dataclasses.dataclass(frozen=True)
class Objective:
    """One of a study's objectives.

    Attributes:
        name: the metric.
        direction: ``maximize`` or ``minimize``.
        column: the metric of a point's run that holds the engine's own number.
    """

    name: str
    direction: str
    column: str


def objectives(config: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of a resolved sweep file."""
    names = objectives_of(config)
    given = (config.get("study") or {}).get("direction") or "maximize"
    directions = [given] * len(names) if isinstance(given, str) else list(given)
    columns = ["objective"] if len(names) == 1 else [f"objective/{index}" for index in range(len(names))]
    return tuple(map(Objective, names, directions, columns))


def best_rows(config: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The finished points with finite objectives, best first.

    With several objectives: those that no other point beats in one of them without losing in another.

    Args:
        config: the resolved sweep file.
        points: by name, ``status`` and metrics of each.
    """
    asked = objectives(config)
    scores = {
        place: [float(row[one.column]) for one in asked]
        for place, row in enumerate(points)
        if row["status"] == FINISHED and all(one.column in row for one in asked)
    }
    return [points[place] for place in best_first(scores, [one.direction for one in asked])]
