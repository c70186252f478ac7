"""All pictures of a sweep, by name: for a notebook or a paper, without writing a report."""

from __future__ import annotations

from collections.abc import Callable

from analysis import summaries
from analysis.frames import SweepData
from analysis.plots import cost, held_out, hyperparameters, learning, search, tuning
from analysis.plots.pictures import Picture

__all__ = ["PICTURES", "pictures"]

PICTURES: dict[str, Callable[[SweepData], Picture | None]] = {
    "learning_curves": learning.learning_curves,
    "tuned_values": tuning.tuned_values,
    "held_out": lambda data: held_out.held_out_returns(data, summaries.set_names(data)),
    "in_life_curves": lambda data: held_out.in_life_curves(data, summaries.set_names(data)),
    "performance_profiles": lambda data: held_out.profiles(data, summaries.set_names(data)),
    "search": search.best_so_far,
    "pareto": search.pareto,
    "hyperparameters": hyperparameters.one_by_one,
    "parallel_coordinates": hyperparameters.parallel,
    "importance": hyperparameters.importance,
    "cost": cost.cost_picture,
}


def pictures(data: SweepData) -> dict[str, Picture]:
    """Every picture that the data allow: ``picture.static`` for print, ``.interactive`` for a page."""
    drawn = {name: draw(data) for name, draw in PICTURES.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}
