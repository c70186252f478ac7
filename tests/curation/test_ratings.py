from __future__ import annotations

import math

import numpy as np
import pytest

from metalab.curation.ratings import acceptance_probability, distribution, percentiles


@pytest.mark.parametrize(("batch", "keep"), [(32, 8), (10, 1), (7, 6), (128, 96)])
def test_acceptance_averages_exactly_the_share_that_is_kept(batch: int, keep: int) -> None:
    # The probability is a polynomial of degree B - 1 in p: Gauss's rule with B nodes integrates it exactly.
    nodes, weights = np.polynomial.legendre.leggauss(batch)
    mean = 0.5 * weights @ acceptance_probability(0.5 * (nodes + 1.0), batch, keep)
    assert mean == pytest.approx(keep / batch, rel=1e-12)


def test_acceptance_is_the_sum_of_the_paper() -> None:
    p, batch, keep = 0.3, 8, 3
    terms = [math.comb(batch - 1, s) * (1 - p) ** s * p ** (batch - s - 1) for s in range(keep)]
    np.testing.assert_allclose(acceptance_probability(np.asarray([p]), batch, keep), [sum(terms)], rtol=1e-12)


def test_acceptance_at_its_ends() -> None:
    ends = np.asarray([0.0, 1.0])
    np.testing.assert_array_equal(acceptance_probability(ends, 8, 3), [0.0, 1.0])
    np.testing.assert_array_equal(acceptance_probability(ends, 8, 8), [1.0, 1.0])
    with pytest.raises(ValueError, match="keep=9: expected 1 to batch=8"):
        acceptance_probability(ends, 8, 9)


def test_percentiles_average_one_half() -> None:
    scores = np.asarray([5.0, 1.0, 1.0, 2.0])
    np.testing.assert_allclose(percentiles(scores), [0.875, 0.25, 0.25, 0.625])
    assert percentiles(scores).mean() == 0.5


def test_the_distribution_runs_from_the_lowest_to_the_highest_score() -> None:
    frame = distribution(np.arange(101.0))
    np.testing.assert_allclose(frame["score"], 100.0 * frame["share"], atol=1e-9)
