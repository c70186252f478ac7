from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import summaries
from analysis.frames import evaluations, load_sweep, records, series, sweep_runs, typed
from analysis.lives import final_lives
from analysis.systems import score_of, scoring_frame
from metalab.errors import MetalabError
from tests.analysis.conftest import ASSESSMENTS

RATE = "outer.optimizer.learning_rate"


@pytest.fixture(scope="module")
def data(demo: Path) -> Any:
    return load_sweep(demo, "demo")


def cells(frame: Any, **wanted: Any) -> dict[str, Any]:
    found = [row for row in records(frame) if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_runs_are_typed_and_in_order(demo: Path):
    runs = sweep_runs(demo, "demo")
    assert list(runs["label"])[:4] == ["point 0", "point 1", "point 2", "point 3"]
    assert list(runs["label"])[4:] == ["a2c", "floor", "optimal", "random", "untrained"]
    assert list(runs.loc[runs["kind"] == "point", RATE]) == [1e-4, 1e-3, 1e-2, 0.1]
    assert list(runs["status"])[2:4] == ["finished", "failed"]


def test_series_and_evaluations_are_long(demo: Path):
    assert set(series(demo, "demo")["metric"]) == {"train/score", "evaluation/train/return"}
    assert list(evaluations(demo, "demo")["set"].unique()) == ["train", "held_out", "longer"]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "2"], [1, 2]),
        (["1", "2.5"], [1.0, 2.5]),
        (["true", "False"], [True, False]),
        (["lstm", "1"], ["lstm", "1"]),
        (["1", None], [1, None]),
    ],
)
def test_typed(texts: list[str | None], values: list[Any]):
    found = typed(texts)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_missing_store_and_sweep_are_one_line(demo: Path, tmp_path: Path):
    with pytest.raises(MetalabError, match=r"no MLflow store at .*run `metalab sweep FILE` first"):
        load_sweep(tmp_path, "demo")
    assert not list(tmp_path.iterdir())
    with pytest.raises(MetalabError, match=r"no sweep named 'demmo' .* did you mean 'demo'\?"):
        load_sweep(demo, "demmo")


def test_a_copied_store_reads_its_own_files(demo: Path, tmp_path: Path, data: Any):
    copied = tmp_path / "copied"
    shutil.copytree(demo, copied)
    # The database still notes the first place.
    found = load_sweep(copied, "demo")
    assert found.folder.is_relative_to(copied)
    assert len(found.evaluations) == len(data.evaluations)
    next(copied.glob("artifacts/*/*/artifacts/evaluation.parquet")).unlink()
    assert len(load_sweep(copied, "demo").evaluations) < len(data.evaluations)


def test_end_of_life_is_the_mean_of_the_last_three(data: Any):
    run_id = cells(data.runs, label="a2c")["run_id"]
    lives = final_lives(data, run_id, "train")
    assert lives is not None
    # 0.8 + 0.01 s + 0.02 t, reached at two thirds of the life and kept: seed 1, task 2 ends at 0.85.
    assert lives.end[1, 2] == pytest.approx(0.85)
    # Nine assessments at 0, 320, ...: level x 0, .1875, .375, .5625, .75, .9375, 1, 1, 1; birth left out.
    assert lives.mean[0, 0] == pytest.approx(0.8 * (0.1875 + 0.375 + 0.5625 + 0.75 + 0.9375 + 3) / 8)


def test_the_best_point_is_chosen_by_the_objective_and_a_broken_seed_disqualifies(data: Any):
    table = summaries.objective_table(data)
    assert list(table["label"]) == ["point 1", "point 0", "point 3", "point 2"]
    best = cells(table, label="point 1")
    # Last selection returns .94, .95, .96: three values, so the interquartile mean is the mean.
    assert best["objective"] == pytest.approx(0.95)
    assert (best["mean_low"], best["mean_high"]) == pytest.approx((0.94, 0.96))
    broken = cells(table, label="point 2")
    assert np.isnan(broken["objective"])
    assert (broken["n_seeds"], broken["n_diverged"]) == (2, 1)
    assert summaries.best_point(data) is not None


def test_headline_numbers(data: Any):
    table = summaries.headline_table(data, ("held_out", "longer"))
    best = cells(table, set="held_out", method="best")
    # Level .95 + mean of .01 s (.01) + mean of .02 t (.03).
    assert best["return"] == pytest.approx(0.99)
    assert (best["n_seeds"], best["n_tasks"]) == (3, 4)
    assert best["return_low"] < 0.99 < best["return_high"]
    # a2c: .8 + .04.
    assert best["ratio"] == pytest.approx(0.99 / 0.84)
    assert best["ratio_low"] < best["ratio"] < best["ratio_high"]
    # Every seed beats every seed on every task.
    assert best["improves"] == 1.0
    assert cells(table, set="longer", method="best")["return"] == pytest.approx(0.89)
    a2c = cells(table, set="held_out", method="a2c")
    assert a2c["label"] == "a2c (tuned)"
    assert np.isnan(a2c["ratio"])
    assert [row["method"] for row in records(table)][:5] == ["best", "a2c", "untrained", "random", "optimal"]


def test_threshold_numbers(data: Any):
    table = summaries.threshold_table(data, ("held_out", "longer"))
    assert set(table["set"]) == {"held_out"}  # `longer` has no threshold
    best = cells(table, set="held_out", method="best")
    # Returns rise by .475 x level an assessment: level x .475 k >= .9 first at k = 2 for levels of at least
    # .9474, which all are (.95 and above): 2 x 320 steps.
    assert best["steps"] == pytest.approx(640.0)
    assert best["solved_seeds"] == "3/3"
    assert best["success_low"] == pytest.approx(0.438503, abs=1e-6)
    # a2c ends at .80 to .88: never; its whole life of 8 x 320 and one more stride.
    a2c = cells(table, set="held_out", method="a2c")
    assert (a2c["steps"], a2c["censored"], a2c["solved_seeds"]) == (2880.0, 1.0, "0/3")
    assert best["speedup"] == pytest.approx(2880 / 640)
    # Methods without a life have no steps.
    assert "random" not in set(table["method"])
    assert records(summaries.floors(data)) == [{"set": "held_out", "steps": 640.0}]


def test_normalised_scores_are_between_random_and_optimal(data: Any):
    table = summaries.normalised_table(data, ("held_out",))
    # Task by task (level + .01 s + .02 t - .1 - .02 t) / 1: mean over seeds .86, .71; gaps .14, .29.
    assert cells(table, method="best")["iqm"] == pytest.approx(0.86)
    assert cells(table, method="a2c")["gap"] == pytest.approx(0.29)


def test_failures_name_run_seed_and_step(data: Any):
    rows = [tuple(row) for row in summaries.failures(data).itertuples(index=False)]
    what = "a training metric is not finite from this step on"
    assert rows == [("point 2", "2", 25, what), ("point 3", "all", "-", "failed")]


def test_differences_are_the_searched_key(data: Any):
    frame = summaries.config_differences(data)
    assert list(frame.index) == [RATE]
    assert list(frame.loc[RATE]) == ["0.0001", "0.001", "0.01", "0.1"]


def test_an_ablation_is_paired_by_the_seeds_that_lived_in_both(data: Any):
    _, score = score_of(data.config) or ("", None)
    assert score is not None
    frame = scoring_frame(data)
    ablated = frame[frame["set"] == "longer"].assign(set="longer_constant_y")
    # Seed s loses .1 (1 + s); seed 1 broke down there.
    ablated["value"] -= 0.1 * (1 + ablated["seed"])
    ablated.loc[ablated["seed"] == 1, "value"] = np.nan
    table = score(pd.concat([frame, ablated]))
    lost = cells(table, set="longer", quantity="return lost when y is constant")
    assert lost["value"] == pytest.approx((0.1 + 0.3) / 2)
    assert (lost["n_seeds"], lost["n_tasks"]) == (2, 4)
    without = cells(table, set="longer", quantity="return when y is constant")
    assert without["value"] == pytest.approx((0.88 - 0.1 + 0.90 - 0.3) / 2)  # .85 + .01 s + .03


def test_what_y_tells_is_shown_beside_the_untrained_rule(data: Any):
    _, score = score_of(data.config) or ("", None)
    assert score is not None
    frame = scoring_frame(data)
    one: Any = frame[(frame["set"] == "held_out") & (frame["method"] == "best") & (frame["task"] == 0)]
    one = one[one["update"] == ASSESSMENTS - 1]
    values = {"prediction_r2": [0.8, 0.85, 0.9], "prediction_r2_untrained": [0.5, 0.45, 0.55]}
    values["prediction_r2_gain"] = [0.3, 0.4, 0.35]
    probed = [one.assign(metric=metric, value=found) for metric, found in values.items()]
    table = score(pd.concat([frame, *probed]))
    gain = cells(table, set="held_out", quantity="R^2 gained by training")
    # Three values a twentieth apart: deviation .05, t(.975, 2) = 4.302653, half width .12421.
    assert gain["value"] == pytest.approx(0.35)
    assert (gain["value_low"], gain["value_high"]) == pytest.approx(
        (0.35 - 0.124207, 0.35 + 0.124207), abs=1e-5
    )
    assert cells(table, quantity="R^2 of exact values from y")["value"] == pytest.approx(0.85)
    assert cells(table, quantity="R^2 of exact values from y, untrained rule")["value"] == pytest.approx(0.5)


def test_lpg_score(data: Any):
    name, score = score_of(data.config) or ("", None)
    assert name == "lpg"
    assert score is not None
    frame = scoring_frame(data)
    # The same lives with a constant y end 0.2 lower.
    ablated = frame[frame["set"] == "held_out"].assign(set="held_out_constant_y")
    ablated["value"] -= 0.2
    table = score(pd.concat([frame, ablated]))
    values = {row["quantity"]: row["value"] for row in records(table) if row["set"] == "held_out"}
    assert values == pytest.approx(
        {
            "return / a2c's return": 0.99 / 0.84,
            "a2c's steps to 0.9 / its steps": 4.5,
            "its steps to 0.9 / the floor": 1.0,
            "meta-seeds that reach 0.9": 1.0,
            "return when y is constant": 0.79,
            "return lost when y is constant": 0.2,
        }
    )
    lost = cells(table, set="held_out", quantity="return lost when y is constant")
    # In pairs every life loses the same: no spread, though the returns themselves differ.
    assert (lost["value_low"], lost["value_high"]) == pytest.approx((0.2, 0.2))
    assert score_of({"inner": {"kind": "symla"}}) is None
