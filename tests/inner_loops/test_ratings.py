from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from inner_loops.data.base import Examples
from inner_loops.ratings import area_under_curve, rank_correlation, rating_metrics

LEVELS = (0.0, 0.5, 1.0)


def test_rank_correlation_is_spearmans_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.integers(0, 4, 50).astype(float)
    expected = stats.spearmanr(a, b).statistic  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(rank_correlation(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-5)
    assert float(rank_correlation(jnp.ones(5), jnp.arange(5.0))) == 0.0


def test_area_under_curve_counts_pairs_and_ties_as_halves() -> None:
    # Positive scores 3 and 1 against 2, 1 and 0: pairs won 3 + (0 + 1/2 + 1) of 6.
    scores = jnp.asarray([3.0, 1.0, 2.0, 1.0, 0.0])
    positive = jnp.asarray([True, True, False, False, False])
    np.testing.assert_allclose(area_under_curve(scores, positive, ~positive), 4.5 / 6)


def examples(kinds: int = 1) -> Examples:
    level = jnp.tile(jnp.asarray(LEVELS), 4)
    return Examples(None, level, jnp.arange(12, dtype=jnp.int32) % kinds)


def test_a_perfect_rater_and_one_that_says_nothing() -> None:
    given = examples()
    perfect = rating_metrics(-2.0 * given.level + 7.0, given, LEVELS, ("Noise",))
    assert float(perfect["rating/auc"]) == 1.0
    assert float(perfect["rating/auc_mildest"]) == 1.0
    assert float(perfect["rating/spearman"]) == pytest.approx(1.0)
    # Levels 0, 1/2, 1 in equal numbers: deviations (1, 0, -1) / sqrt(2/3).
    means = [float(perfect[f"rating/level_{level:g}/mean"]) for level in LEVELS]
    np.testing.assert_allclose(means, [1.5**0.5, 0.0, -(1.5**0.5)], atol=1e-5)
    silent = rating_metrics(jnp.zeros(12), given, LEVELS, ("Noise",))
    assert float(silent["rating/auc"]) == 0.5
    assert float(silent["rating/spearman"]) == 0.0


def test_every_kind_of_corruption_has_an_area_of_its_own() -> None:
    given = examples(kinds=2)
    # Seen are corruptions of the first kind alone.
    scores = jnp.where((given.kind == 0) & (given.level > 0), -1.0, 0.0)
    found = rating_metrics(scores, given, LEVELS, ("Seen", "Unseen"))
    assert float(found["rating/auc/Seen"]) == 1.0
    assert float(found["rating/auc/Unseen"]) == 0.5


def test_jitted_as_unjitted() -> None:
    given = examples(kinds=2)
    scores = jax.random.normal(jax.random.key(0), (12,))
    plain = rating_metrics(scores, given, LEVELS, ("A", "B"))
    jitted = jax.jit(lambda s, g: rating_metrics(s, g, LEVELS, ("A", "B")))(scores, given)
    for name, value in plain.items():
        np.testing.assert_allclose(jitted[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
