"""Solved or not, where returns are negative and a newborn has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.frames import SweepData, load_sweep
from analysis.sections import sections
from analysis.summaries import threshold_table
from tests.analysis.conftest import STRIDE, Writer

SOON = [np.nan, -1400.0, -190.0, -150.0, -150.0]
LATE = [np.nan, -190.0, -900.0, -250.0, -180.0]  # above -200 at first, but not for good
NEVER = [np.nan, -1500.0, -1500.0, -1400.0, -1500.0]


@pytest.fixture
def pendulum(new_store: Callable[..., Writer], tmp_path: Path) -> Callable[..., SweepData]:
    """A sweep of one point with three seeds on one task, five assessments each."""

    def make(*lives: list[float]) -> SweepData:
        sets = {"pendulum": {"threshold": -200}}
        writer = new_store(tmp_path, evaluation={"sets": sets}, search={}, study={"objective": "train/score"})
        writer.point(0, {}, {"pendulum": np.asarray(lives)[:, None]}, 1.0)
        return load_sweep(tmp_path, "demo")

    return make


def words(data: SweepData) -> str:
    return " ".join(next(one for one in sections(data) if one.name == "headline").words)


def test_steps_are_counted_from_where_the_threshold_is_held_for_good(pendulum):
    """Assessments at 0, 320, ...: held from 640, from 1280, and never, which counts as 1280 + 320."""
    data = pendulum(SOON, LATE, NEVER)
    row = threshold_table(data, ["pendulum"]).iloc[0]
    assert row["steps"] == pytest.approx((2 + 4 + 5) * STRIDE / 3)
    assert row["censored"] == pytest.approx(1 / 3)
    # The last three of SOON average -163, of LATE -443: it holds the threshold, but ends below it.
    assert row["solved_seeds"] == "1/3"
    assert "1/3 seeds end at or above the threshold -200 of `pendulum`" in words(data)
    assert "after at least 1173 [" in words(data)


def test_a_newborn_without_a_return_has_not_solved_anything(pendulum):
    """Zero at birth would be above -200 and, where all later returns are, hold it from the first step on."""
    data = pendulum(SOON, [np.nan, -150.0, -150.0, -150.0, -150.0])
    assert threshold_table(data, ["pendulum"]).iloc[0]["steps"] == pytest.approx((2 + 1) * STRIDE / 2)
    assert "after 480.0 [" in words(data)


def test_what_no_life_holds_is_said(pendulum):
    assert "0/2 seeds end at or above the threshold -200 of `pendulum`; no life holds" in words(
        pendulum(NEVER, NEVER)
    )
