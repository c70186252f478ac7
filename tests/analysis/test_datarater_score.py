from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.systems.datarater import levels_of, score

UPDATES = np.arange(5)


def rows(name: str, metric: str, values: dict[int, list[float]]) -> pd.DataFrame:
    """One metric of a set; ``values``: seed to its value at every assessment."""
    parts = [
        pd.DataFrame({"seed": seed, "update": UPDATES[: len(found)], "value": found})
        for seed, found in values.items()
    ]
    frame = pd.concat(parts).assign(set=name, metric=metric, task=0, outer_step=10, method="best")
    return frame.assign(env_steps=frame["update"] * 25)


# Losses fall from 5: everything to 3, the judge passes 3 after half the steps, the oracle ends at 1.
FRAME: Any = pd.concat(
    [
        rows("ratings", "rating/auc", {0: [0.5, 0.9], 1: [0.5, 0.94]}),
        rows("ratings", "rating/level_0/mean", {0: [0.0, 1.0], 1: [0.0, 1.0]}),
        rows("ratings", "rating/level_0.5/mean", {0: [0.0, 0.2], 1: [0.0, 0.1]}),
        rows("ratings", "rating/level_1/mean", {0: [0.0, -1.0], 1: [0.0, 0.3]}),
        rows("everything", "return", {seed: [-5, -4.5, -4, -3.5, -3] for seed in (0, 1)}),
        rows("rated", "return", {seed: [-5, -4, -2.9, -2, -1.5] for seed in (0, 1)}),
        rows("oracle", "return", {seed: [-5, -2, -1.5, -1.2, -1] for seed in (0, 1)}),
    ]
)


def value(name: str, quantity: str) -> float:
    found = score(FRAME)
    mine = (found["set"] == name) & found["quantity"].str.startswith(quantity)
    return float(found.loc[mine, "value"].item())


def test_ratings_are_those_of_the_last_assessment_over_seeds() -> None:
    assert value("ratings", "area under the curve, clean against the rest") == pytest.approx(0.92)
    # The second seed's means rise from the middle level to the highest.
    assert value("ratings", "seeds whose mean rating falls") == pytest.approx(0.5, abs=0.2)
    assert [level for level, _ in levels_of(FRAME)] == [0.0, 0.5, 1.0]


def test_judges_are_compared_with_everything_and_the_oracle() -> None:
    assert value("everything", "final loss") == pytest.approx(3.0)
    assert value("rated", "its steps to the final loss of everything") == pytest.approx(0.5)
    assert value("rated", "share of the gap") == pytest.approx((3 - 1.5) / (3 - 1))
    assert value("oracle", "its steps to") == pytest.approx(0.25)
    assert "share of the gap to the oracle that it closes" not in set(
        score(FRAME[FRAME["set"] != "oracle"])["quantity"]
    )


def test_a_judge_that_never_arrives_counts_with_all_steps() -> None:
    worse = rows("random", "return", {seed: [-5, -4, -4, -4, -4] for seed in (0, 1)})
    found = score(pd.concat([FRAME[FRAME["set"] == "everything"], worse]))
    share = found[found["set"].eq("random") & found["quantity"].str.startswith("its steps")]["value"]
    assert share.item() == 1.0
