"""The objective: one number a seed from a metric's whole curve, as the study asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from metalab.spec import Study
from metalab.sweep.history import Series

__all__ = ["at_the_end", "reduced", "so_far"]


def reduced(values: np.ndarray, how: str, fraction: float, direction: str) -> np.ndarray:
    """One number per seed of a curve.

    Args:
        values: [S, n], in the order of the steps.
        how: ``last``, ``mean`` (of the last ``fraction``) or ``best``.
        fraction: of the curve's points, at least one.
        direction: ``maximize`` or ``minimize``: what best means.

    Returns:
        [S]; NaN where the part that counts holds one; ``best`` looks at what a seed reached before it
        diverged.

    >>> reduced(np.array([[1.0, 3.0, 2.0, 4.0]]), "mean", 0.5, "maximize")
    array([3.])
    """
    if how == "last":
        return values[:, -1]
    if how == "mean":
        return values[:, -math.ceil(fraction * values.shape[1]) :].mean(axis=1)
    worst = -np.inf if direction == "maximize" else np.inf
    known = np.where(np.isfinite(values), values, worst)
    best = known.max(axis=1) if direction == "maximize" else known.min(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def so_far(study: Study, series: Series) -> np.ndarray | None:
    """The first objective of each seed ``[S]`` up to now; None: it has not been reported yet."""
    found = series.of(study.objectives[0])
    if found is None:
        return None
    return reduced(found[1], study.reduce, study.last_fraction, study.directions[0])


def at_the_end(study: Study, series: Series, finals: Mapping[str, np.ndarray]) -> list[np.ndarray | None]:
    """Every objective of each seed at the end of a point's life; None: this point has no such metric.

    Args:
        study: the settings.
        series: of the point.
        finals: ``final/SET/METRIC`` to values ``[S]``.
    """
    values: list[np.ndarray | None] = []
    for name, direction in zip(study.objectives, study.directions, strict=True):
        found = series.of(name)
        if found is not None:
            values.append(reduced(found[1], study.reduce, study.last_fraction, direction))
        else:  # a set that is evaluated at the end only
            values.append(finals.get(name.replace("evaluation/", "final/", 1)))
    return values
