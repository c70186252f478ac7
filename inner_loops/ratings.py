"""How good ratings are, where the corruption level of what was rated is known.

Ranks and areas are counted over all pairs, ties as halves, so that a rater that says nothing scores exactly
0 and 0.5.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from inner_loops.data.base import Examples

__all__ = ["QUANTILES", "area_under_curve", "rank_correlation", "rating_metrics"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the ratings at each level, for the report's distributions


def rating_metrics(
    scores: Array, examples: Examples, levels: tuple[float, ...], kinds: tuple[str, ...]
) -> dict[str, Array]:
    """What is reported of scores [n].

    Returns:
        ``rating/spearman`` of score and minus level; ``rating/auc``, clean against the rest (for each kind
        too, where there are several) and ``rating/auc_mildest``, against the lowest level; the scores' mean
        and quantiles at each level (``rating/level_0.25/mean``), in units of their own deviation around
        their own mean, for the softmax leaves both open.
    """
    standard = (scores - jnp.mean(scores)) / (jnp.std(scores) + 1e-12)
    level, clean = examples.level, examples.level == levels[0]
    found = {
        "rating/spearman": rank_correlation(scores, -level),
        "rating/auc": area_under_curve(scores, clean, ~clean),
        "rating/auc_mildest": area_under_curve(
            scores, clean, jnp.isclose(level, levels[min(1, len(levels) - 1)])
        ),
    }
    for number, kind in enumerate(kinds if len(kinds) > 1 else ()):
        found[f"rating/auc/{kind}"] = area_under_curve(scores, clean, ~clean & (examples.kind == number))
    for one in levels:
        here = jnp.where(jnp.isclose(level, one), standard, jnp.nan)
        found[f"rating/level_{one:g}/mean"] = jnp.nanmean(here)
        for quantile in QUANTILES:
            found[f"rating/level_{one:g}/q{100 * quantile:g}"] = jnp.nanquantile(here, quantile)
    return found


def rank_correlation(a: Array, b: Array) -> Array:
    """[] Spearman's correlation of two arrays [n]: Pearson's of their ranks, ties sharing theirs.

    0 where one of them is constant.
    """
    ranks = [_ranks(values) - (values.shape[0] - 1) / 2 for values in (a, b)]
    covariance = jnp.sum(ranks[0] * ranks[1])
    spread = jnp.sqrt(jnp.sum(jnp.square(ranks[0])) * jnp.sum(jnp.square(ranks[1])))
    return jnp.where(spread > 0, covariance / jnp.maximum(spread, 1e-12), 0.0)


def area_under_curve(scores: Array, positive: Array, negative: Array) -> Array:
    """[] probability that one of the positive has a higher score than one of the negative, ties as halves."""
    above = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
    pairs = positive[:, None] & negative[None, :]
    return jnp.sum(above * pairs) / jnp.maximum(jnp.sum(pairs), 1)


def _ranks(values: Array) -> Array:
    """[n] from 0; equal values share the mean of their ranks."""
    below = jnp.sum(values[None, :] < values[:, None], axis=1)
    equal = jnp.sum(values[None, :] == values[:, None], axis=1)
    return below + (equal - 1) / 2
