"""Statistics of few runs on many tasks, on numpy and scipy alone.

Interquartile mean, stratified bootstrap, performance profiles, probability of improvement and optimality
gap follow Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), *Deep Reinforcement Learning at the
Edge of the Statistical Precipice* (arXiv:2108.13264).

Score matrices are ``[S, P]``: ``S`` runs (seeds) by ``P`` tasks. Every random draw comes from an explicit
seed, so that the same store gives the same report.

**Deviations**: a meta-seed touches all tasks of a set at once, so resampling runs task by task (their
stratified bootstrap) understates its variance. ``crossed_bootstrap`` resamples whole seeds and whole tasks
instead, and is what the report quotes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "Interval",
    "crossed_bootstrap",
    "interval_over_seeds",
    "iqm",
    "optimality_gap",
    "paired_ratio",
    "performance_profile",
    "probability_of_improvement",
    "steps_to_threshold",
    "stratified_bootstrap",
    "t_interval",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Statistic = Callable[..., NDArray[np.float64]]
"""Called as ``statistic(values, axis=-1)``: ``np.mean``, ``np.median``, ``iqm``, ..."""

RESAMPLES = 2000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and its interval: three floats, or three arrays of one shape."""

    estimate: Floats
    low: Floats
    high: Floats


def iqm(values: ArrayLike, axis: int | None = None) -> Floats:
    """Interquartile mean: the mean of what is left without the lowest and the highest quarter.

    A quarter is rounded down, so that fewer than four values give their mean. NaN anywhere gives NaN.

    Args:
        values: any shape.
        axis: along which to average; None: over everything.
    """
    array = np.asarray(values, np.float64)
    if axis is None:
        array, axis = array.reshape(-1), 0
    # np.sort puts NaN last, where trimming would hide it.
    broken = np.isnan(array).any(axis=axis)
    ordered = np.sort(array, axis=axis)
    cut = array.shape[axis] // 4
    kept = np.take(ordered, np.arange(cut, array.shape[axis] - cut), axis=axis)
    return np.where(broken, np.nan, kept.mean(axis=axis))


def optimality_gap(values: ArrayLike, target: float = 1.0, axis: int | None = None) -> Floats:
    """Mean shortfall below ``target``, where what exceeds the target counts as having met it.

    Args:
        values: normalised scores, any shape; ``target`` is what counts as optimal.
        axis: along which to average; None: over everything.
    """
    return np.asarray(np.mean(target - np.minimum(np.asarray(values, np.float64), target), axis=axis))


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Statistic = np.mean,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Percentile interval that resamples the runs of each task by themselves; the tasks are fixed.

    Args:
        scores: ``[S, P]`` runs by tasks.
        statistic: of the flattened resample, called with ``axis=-1``.
        resamples: number of bootstrap draws.
        confidence: of the two-sided interval.
        seed: of the draws.
    """
    matrix = _score_matrix(scores)
    runs, tasks = matrix.shape
    rows = np.random.default_rng(seed).integers(0, runs, (resamples, runs, tasks))
    drawn = statistic(matrix[rows, np.arange(tasks)].reshape(resamples, -1), axis=-1)
    return _percentiles(statistic(matrix.reshape(-1), axis=-1), drawn, confidence)


def crossed_bootstrap(
    scores: ArrayLike,
    statistic: Statistic = np.mean,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Percentile interval over seeds and tasks: whole rows and whole columns are resampled.

    With one run the interval is over tasks alone, with one task over runs alone.

    Args:
        scores: ``[S, P]`` runs by tasks.
        statistic: of the flattened resample, called with ``axis=-1``.
        resamples: number of bootstrap draws.
        confidence: of the two-sided interval.
        seed: of the draws.
    """
    matrix = _score_matrix(scores)
    rows, columns = _crossed_indices(np.random.default_rng(seed), matrix.shape, resamples)
    drawn = statistic(matrix[rows[:, :, None], columns[:, None, :]].reshape(resamples, -1), axis=-1)
    return _percentiles(statistic(matrix.reshape(-1), axis=-1), drawn, confidence)


def paired_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Ratio of two means on the same tasks, with an interval that resamples the tasks in pairs.

    A drawn task is drawn for both; runs are resampled apart, for a meta-seed of one method has nothing to do
    with a seed of the other.

    Args:
        numerator: ``[S1, P]`` runs by tasks.
        denominator: ``[S2, P]`` the other method on the same tasks in the same order.

    Raises:
        ValueError: the two have not the same number of tasks.
    """
    above, below = _score_matrix(numerator), _score_matrix(denominator)
    if above.shape[1] != below.shape[1]:
        raise ValueError(
            f"a paired ratio needs the same tasks on both sides, got {above.shape[1]} and {below.shape[1]}"
        )
    generator = np.random.default_rng(seed)
    rows, columns = _crossed_indices(generator, above.shape, resamples)
    other_rows, _ = _crossed_indices(generator, below.shape, resamples)
    top = above[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    bottom = below[other_rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    return _percentiles(_divide(above.mean(), below.mean()), _divide(top, bottom), confidence)


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Fraction of runs and tasks that score above each threshold, with its interval over seeds and tasks.

    Args:
        scores: ``[S, P]`` runs by tasks.
        thresholds: ``[U]`` increasing.

    Returns:
        Three arrays ``[U]``.
    """
    matrix = _score_matrix(scores)
    above = (matrix[:, :, None] > np.asarray(thresholds, np.float64)).astype(np.float64)
    rows, columns = _crossed_indices(np.random.default_rng(seed), matrix.shape, resamples)
    row_weights, column_weights = _counts(rows, matrix.shape[0]), _counts(columns, matrix.shape[1])
    drawn = np.einsum("rs,spu,rp->ru", row_weights, above, column_weights, optimize=True)
    return _percentiles(above.mean(axis=(0, 1)), drawn, confidence)


def probability_of_improvement(
    scores: ArrayLike,
    others: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Chance that a run beats a run of the other method on a random task (ties count one half).

    Args:
        scores: ``[S1, P]``; others: ``[S2, P]`` on the same tasks in the same order.

    Raises:
        ValueError: the two have not the same number of tasks.
    """
    one, two = _score_matrix(scores), _score_matrix(others)
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"both methods need the same tasks, got {one.shape[1]} and {two.shape[1]}")
    difference = one[:, None, :] - two[None, :, :]
    wins = (difference > 0) + 0.5 * (difference == 0)  # [S1, S2, P]
    generator = np.random.default_rng(seed)
    rows, columns = _crossed_indices(generator, one.shape, resamples)
    other_rows, _ = _crossed_indices(generator, two.shape, resamples)
    drawn = np.einsum(
        "ra,abp,rb,rp->r",
        _counts(rows, one.shape[0]),
        wins,
        _counts(other_rows, two.shape[0]),
        _counts(columns, one.shape[1]),
        optimize=True,
    )
    return _percentiles(wins.mean(), drawn, confidence)


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean over the first axis; NaN bounds with fewer than two values.

    Args:
        values: ``[S, ...]``.
    """
    array = np.asarray(values, np.float64)
    count = array.shape[0]
    mean = array.mean(axis=0)
    if count < 2:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = stats.t.ppf(0.5 + confidence / 2, count - 1) * array.std(axis=0, ddof=1) / np.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def interval_over_seeds(
    values: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean over seeds with a percentile bootstrap interval, at every position of a curve.

    A seed that is NaN at a position is left out there alone. With one finite seed the interval is the point.

    Args:
        values: ``[S, ...]``, for example ``[S, outer steps]``.

    Returns:
        Three arrays ``[...]``; NaN where no seed is finite.
    """
    array = np.asarray(values, np.float64)
    seeds, flat = array.shape[0], array.reshape(array.shape[0], -1)
    finite = np.isfinite(flat)
    filled = np.where(finite, flat, 0.0)
    rows = np.random.default_rng(seed).integers(0, seeds, (resamples, seeds))
    weights = _counts(rows, seeds)
    drawn = _divide(weights @ filled, weights @ finite)
    tail = (1 - confidence) / 2
    low, high = (_quantile(drawn, q) for q in (tail, 1 - tail))
    mean = _divide(filled.sum(axis=0), finite.sum(axis=0))
    shape = array.shape[1:]
    return Interval(mean.reshape(shape), low.reshape(shape), high.reshape(shape))


def wilson_interval(successes: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's (1927) interval of a success rate; honest for few trials, where the t interval is not.

    Raises:
        ValueError: ``count`` is not positive or ``successes`` is not in ``0..count``.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"a success rate needs 0 <= successes <= count and count >= 1: {successes}/{count}")
    z = stats.norm.ppf(0.5 + confidence / 2)
    rate = successes / count
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    # Rounding may leave -1e-17 where the bound is 0 exactly.
    bounds = np.clip([centre - half, centre + half], 0.0, 1.0)
    return Interval(np.asarray(rate), np.asarray(bounds[0]), np.asarray(bounds[1]))


def steps_to_threshold(steps: ArrayLike, returns: ArrayLike, threshold: float) -> Floats:
    """First step from which every later assessment stays at or above the threshold.

    Args:
        steps: ``[U]`` environment steps, increasing.
        returns: ``[..., U]`` return at those steps.
        threshold: what counts as solved.

    Returns:
        ``[...]`` environment steps; NaN where the threshold is not held at the end.
    """
    at = np.asarray(steps, np.float64)
    solved = np.asarray(returns, np.float64) >= threshold
    # From the end backwards: True as long as nothing fell below.
    held = np.flip(np.logical_and.accumulate(np.flip(solved, axis=-1), axis=-1), axis=-1)
    return np.where(held[..., -1], at[np.argmax(held, axis=-1)], np.nan)


def _score_matrix(scores: ArrayLike) -> Floats:
    """[S, P] float64, or a ValueError that says what came."""
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"scores must be a non-empty matrix [runs, tasks], got shape {matrix.shape}")
    return matrix


def _crossed_indices(
    generator: np.random.Generator, shape: tuple[int, ...], resamples: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[resamples, S] rows and [resamples, P] columns, both with replacement."""
    rows = generator.integers(0, shape[0], (resamples, shape[0]))
    columns = generator.integers(0, shape[1], (resamples, shape[1]))
    return rows, columns


def _counts(indices: NDArray[np.int64], size: int) -> Floats:
    """[resamples, size] how often each index was drawn, as weights that sum to one."""
    counts = np.stack([np.bincount(row, minlength=size) for row in indices])
    return counts / indices.shape[1]


def _percentiles(estimate: ArrayLike, drawn: Floats, confidence: float) -> Interval:
    """The two-sided percentile interval of ``drawn [resamples, ...]`` around ``estimate [...]``."""
    tail = (1 - confidence) / 2
    low, high = _quantile(drawn, tail), _quantile(drawn, 1 - tail)
    return Interval(np.asarray(estimate, np.float64), low, high)


def _quantile(drawn: Floats, level: float) -> Floats:
    """Quantile over resamples without those that are not numbers (all seeds drawn were missing)."""
    missing = np.isnan(drawn)
    if not missing.any():
        return np.asarray(np.quantile(drawn, level, axis=0))
    if drawn.ndim == 1:
        kept = drawn[~missing]
        return np.asarray(np.quantile(kept, level) if kept.size else np.nan)
    return np.asarray([_quantile(cast(Floats, column), level) for column in drawn.T])


def _divide(above: ArrayLike, below: ArrayLike) -> Floats:
    """``above / below`` with NaN, not a warning, where ``below`` is zero."""
    top, bottom = np.asarray(above, np.float64), np.asarray(below, np.float64)
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    return np.divide(top, bottom, out=np.full(shape, np.nan), where=bottom != 0)
