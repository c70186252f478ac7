"""Ratings of a corpus as tables: a row for each window, percentiles, the cumulative distribution."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "EXAMPLES_FILE",
    "EXAMPLE_COLUMNS",
    "RATING_COLUMNS",
    "acceptance_probability",
    "distribution",
    "percentiles",
]

# A window is the bytes from start to stop of its document's UTF-8 text.
RATING_COLUMNS = ("document", "window", "start", "stop", "score", "percentile")
EXAMPLES_FILE = "rated_examples.parquet"  # the artifact of a run that the report shows
EXAMPLE_COLUMNS = ("document", "window", "score", "percentile", "text")
_POINTS = 1001  # of the cumulative distribution

Floats = NDArray[np.float64]


def percentiles(scores: Floats) -> Floats:
    """The share of all scores [n] below each one, equal ones counted as halves: in (0, 1), mean exactly 1/2.

    >>> percentiles(np.array([3.0, 1.0, 2.0, 2.0])).tolist()
    [0.875, 0.125, 0.5, 0.5]
    """
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del values
    below = np.cumsum(counts) - counts
    return ((below + 0.5 * counts) / max(len(scores), 1))[inverse]


def distribution(scores: Floats) -> pd.DataFrame:
    """The cumulative distribution of scores [n]: columns ``share`` (0 to 1) and ``score``, its quantile."""
    share = np.linspace(0.0, 1.0, _POINTS)
    return pd.DataFrame({"share": share, "score": np.quantile(scores, share)})


def acceptance_probability(percentile: Floats, batch: int, keep: int) -> Floats:
    """Probability that an example is among the best ``keep`` of a batch of ``batch``, known one at a time.

    ``sum_{s < K} C(B - 1, s) (1 - p)^s p^(B - 1 - s)``: at most K - 1 of the B - 1 others are better (Calian
    et al. 2025, arXiv:2505.17895). Its mean over p uniform on [0, 1] is exactly K / B.

    Args:
        percentile: [...] p, the share of all examples with a lower score.
        batch: B.
        keep: K.

    Raises:
        ValueError: K is not between 1 and B.
    """
    from scipy.special import betainc

    if not 1 <= keep <= batch:
        raise ValueError(f"keep={keep}: expected 1 to batch={batch}")
    if keep == batch:
        return np.ones_like(percentile)
    # The lower tail of Binomial(B - 1, 1 - p) at K - 1, as a regularised incomplete beta function.
    return betainc(batch - keep, keep, percentile)
