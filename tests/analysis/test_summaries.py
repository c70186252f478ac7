from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import points, summaries
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
    assert list(runs["label"])[:6] == [f"point {number}" for number in range(6)]
    assert list(runs["label"])[6:] == ["a2c", "floor", "optimal", "random", "untrained"]
    assert list(runs.loc[runs["kind"] == "point", RATE]) == [1e-4, 1e-3, 1e-2, 0.1, 0.05, 0.5]
    assert list(runs["status"])[2:6] == ["finished", "failed", "pruned", "diverged"]
    assert list(runs["reason"])[3:5] == ["MemoryError: no memory", "by median at step 20"]


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
    with pytest.raises(MetalabError, match=r"no MLflow store in .*run `metalab sweep FILE` first"):
        load_sweep(tmp_path, "demo")
    assert not list(tmp_path.iterdir())
    with pytest.raises(MetalabError, match=r"no sweep named 'demmo' .* did you mean 'demo'\?"):
        load_sweep(demo, "demmo")


def test_a_copied_store_reads_its_own_files(demo: Path, tmp_path: Path, data: Any):
    copied = tmp_path / "copied"
    shutil.copytree(demo, copied)
    # The database still notes the first place.
    found = load_sweep(copied, "demo")
    assert found.folder is not None
    assert found.folder.is_relative_to(copied)
    assert len(found.evaluations) == len(data.evaluations)
    next(copied.glob("artifacts/*/*/artifacts/evaluation.parquet")).unlink()
    assert len(load_sweep(copied, "demo").evaluations) < len(data.evaluations)


def test_files_that_are_on_a_server_are_fetched(
    demo: Path, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copied = tmp_path / "copied"
    shutil.copytree(demo, copied)
    monkeypatch.setattr("analysis.store._local_folder", lambda root, run: None)
    found = load_sweep(copied, "demo")
    assert found.folder is None
    pd.testing.assert_frame_equal(found.evaluations, data.evaluations)
    pd.testing.assert_frame_equal(found.series, data.series)
    assert found.config == data.config
    assert list(found.settings) == ["a2c"]


def test_end_of_life_is_the_mean_of_the_last_three(data: Any):
    run_id = cells(data.runs, label="a2c")["run_id"]
    lives = final_lives(data, run_id, "train")
    assert lives is not None
    # 0.8 + 0.01 s + 0.02 t, reached at two thirds of the life and kept: seed 1, task 2 ends at 0.85.
    assert lives.end[1, 2] == pytest.approx(0.85)
    # Nine assessments at 0, 320, ...: level x 0, .1875, .375, .5625, .75, .9375, 1, 1, 1; birth left out.
    assert lives.mean[0, 0] == pytest.approx(0.8 * (0.1875 + 0.375 + 0.5625 + 0.75 + 0.9375 + 3) / 8)


def test_the_best_point_is_chosen_by_the_objective_and_what_did_not_finish_is_not_it(data: Any):
    table = points.objective_table(data)
    # By objective .95 and .6; without one (a broken seed counts as the worst); then what did not finish,
    # of which the pruned point has one.
    assert list(table["number"]) == [1, 0, 2, 4, 3, 5]
    best = cells(table, label="point 1")
    assert best["objective"] == 0.95
    # Last selection returns .94, .95, .96.
    assert (best["mean"], best["mean_low"], best["mean_high"]) == pytest.approx((0.95, 0.94, 0.96))
    broken = cells(table, label="point 2")
    assert np.isnan(broken["objective"])
    assert (broken["n_seeds"], broken["n_diverged"]) == (2, 1)
    pruned = cells(table, label="point 4")
    # Twenty of forty outer steps: two of four selection returns, .2 + (.7 - .2) / 3 at the last.
    assert (pruned["objective"], pruned["mean"]) == pytest.approx((0.45, 0.2 + 0.5 / 3))
    assert cells(table, label="point 3")["n_seeds"] == 0
    found = summaries.best_point(data)
    assert found is not None
    assert found.label == "best point (point 1)"


@pytest.mark.parametrize(
    ("study", "means"),
    [
        # Selection returns of a seed: .2, .45, .7, .95; of the seeds beside it .01 less and more.
        ({"reduce": "mean", "last_fraction": 0.5}, (0.7 + 0.95) / 2),
        ({"reduce": "mean"}, 0.95),  # a tenth of four: the last
        ({"reduce": "best"}, 0.95),
        ({"reduce": "best", "direction": "minimize"}, 0.2),
    ],
)
def test_an_objective_is_taken_over_the_steps_as_the_study_says(
    new_store: Any, tmp_path: Path, study: dict[str, Any], means: float
):
    writer = new_store(tmp_path, study={"objective": "evaluation/train/return", **study})
    writer.point(0, {}, {}, 0.95)
    table = points.objective_table(load_sweep(tmp_path, "demo"))
    assert cells(table, label="point 0")["mean"] == pytest.approx(means)


def test_the_best_of_a_seed_is_what_it_reached_before_it_broke_down(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path, study={"objective": "train/score", "reduce": "best"})
    writer.point(0, {}, {}, 0.9, diverged={0: 1, 1: 21})
    table = points.objective_table(load_sweep(tmp_path, "demo"))
    row = cells(table, label="point 0")
    assert (row["n_seeds"], row["n_diverged"]) == (2, 1)
    # Seed 1: .9 x 19 / 39 + .02 at its twentieth step; seed 2: .94 at its last.
    assert row["mean"] == pytest.approx((0.9 * 19 / 39 + 0.02 + 0.94) / 2)


def test_an_objective_that_a_probe_found_has_one_value_a_seed(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path, study={"objective": "final/train/prediction_r2"})
    run_id = writer.point(0, {}, {}, 0.5)
    columns = {"seed": [0, 1, 2], "value": [0.2, 0.4, np.nan], "metric": "prediction_r2", "set": "train"}
    rest = {"task": 0, "outer_step": 40, "update": 8, "env_steps": 2560}
    writer.frame(run_id, "evaluation.parquet", pd.DataFrame(columns | rest))
    row = cells(points.objective_table(load_sweep(tmp_path, "demo")), label="point 0")
    assert (row["objective"], row["mean"], row["n_seeds"], row["n_diverged"]) == pytest.approx(
        (0.5, 0.3, 2, 1)
    )


def test_without_values_of_seeds_there_is_the_engines_number_alone(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path, study={"objective": "train/not_kept"})
    writer.point(0, {}, {}, 0.5)
    row = cells(points.objective_table(load_sweep(tmp_path, "demo")), label="point 0")
    assert (row["objective"], row["n_seeds"], row["n_diverged"]) == (0.5, 0, 0)
    assert np.isnan(row["mean"])


def test_counts_stand_in_words(data: Any):
    assert points.counts_in_words(data) == (
        "6 points: 3 finished, 1 pruned, 1 diverged, 1 failed; 3 seeds each; 5 baselines"
    )


def test_runs_that_were_begun_again_are_left_aside(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path)
    writer.point(0, {RATE: 0.1}, {}, 0.5, "SUPERSEDED")
    old = writer.store.open(
        "point",
        "another",
        "p",
        parent=writer.parent.run_id,
        tags={"metalab.name": "point 0", "metalab.number": 0},
    )
    writer.store.close(old.run_id, "KILLED")
    writer.store.tag(old.run_id, **{"metalab.status": "SUPERSEDED"})
    writer.point(1, {RATE: 0.2}, {}, 0.9)
    data = load_sweep(tmp_path, "demo")
    assert list(data.runs["label"]) == ["point 1"]
    assert data.superseded == 2
    assert points.counts_in_words(data).endswith("2 earlier runs of points that were run again left aside")


def several(new_store: Any, root: Path, **study: Any) -> Any:
    """Five points of two objectives, of which the second is a cost."""
    named = ["evaluation/train/return", "train/score"]
    study = {"objective": named, "direction": ["maximize", "minimize"], **study}
    writer = new_store(root, study=study, search={RATE: "choice(1, 2, 3, 4, 5)"})
    for number, pair in enumerate([(0.5, 5.0), (0.9, 9.0), (0.4, 6.0), (0.7, 5.0), (0.95, np.nan)]):
        writer.point(number, {RATE: number + 1}, {}, 0.5, objective=pair)
    writer.point(5, {RATE: 1}, {}, 0.5, "PRUNED", objective=(9.0, 0.0), steps=20)
    return load_sweep(root, "demo")


def test_several_objectives_have_a_front(new_store: Any, tmp_path: Path):
    data = several(new_store, tmp_path)
    # Point 3 is better than 0 in the first and equal in the second; 2 is worse than 0 in both.
    assert [row["label"] for row in points.front(data)] == ["point 1", "point 3"]
    found = summaries.best_point(data)
    assert found is not None
    assert found.label == "best point (point 1)"
    first, second = points.objectives(data)
    assert (first.column, second.direction) == ("objective/0", "minimize")
    assert list(points.objective_table(data, 0)["number"]) == [4, 1, 3, 0, 2, 5]
    assert list(points.objective_table(data, 1)["number"]) == [0, 3, 2, 1, 4, 5]


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


def test_what_did_not_finish_has_a_step_and_a_reason(data: Any):
    rows = [tuple(row) for row in points.unfinished(data).itertuples(index=False)]
    assert rows == [
        ("point 3", "failed", 0, "MemoryError: no memory"),
        ("point 4", "pruned", 20, "by median at step 20"),
        ("point 5", "diverged", 20, "not finite in every seed by step 12"),
    ]
    # The seeds of a diverged point are told by its own row.
    assert [tuple(row) for row in points.broken_seeds(data).itertuples(index=False)] == [("point 2", "2", 25)]


def test_a_baseline_that_failed_says_what_its_traceback_ends_with(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path)
    run_id = writer.baseline("a2c", {})
    writer.store.close(run_id, "FAILED")
    writer.store.tag(run_id, **{"metalab.error": "Traceback:\n  File x\nValueError: too many\n"})
    rows = [tuple(row) for row in points.unfinished(load_sweep(tmp_path, "demo")).itertuples(index=False)]
    assert rows == [("a2c", "failed", None, "ValueError: too many")]


def test_differences_are_the_searched_key_of_points_that_were_begun(data: Any):
    frame = points.config_differences(data)
    assert list(frame.index) == [RATE]
    assert list(frame.columns) == ["point 0", "point 1", "point 2", "point 4", "point 5"]
    assert list(frame.loc[RATE]) == ["0.0001", "0.001", "0.01", "0.05", "0.5"]


def test_keys_that_a_point_does_not_set(new_store: Any, tmp_path: Path):
    # With conditions, what the file says of a key that is not set means nothing; in a list it is the value.
    config = {"inner.bonus": 0.5, "inner.rule.kind": "lpg", "inner.rule.size": 8}
    for name, search in (("conditional", {}), ("listed", [{"inner.bonus": 0.1}])):
        writer = new_store(tmp_path / name, search=search)
        writer.point(0, {"inner.bonus": 0.1}, {}, 0.5)
        writer.point(1, {"inner.rule": "as it is in the tag"}, {}, 0.5, config=config)
    found: dict[str, Any] = {
        name: sweep_runs(tmp_path / name, "demo")["inner.bonus"] for name in ("conditional", "listed")
    }
    assert pd.isna(found["conditional"][1])
    assert list(found["listed"]) == [0.1, 0.5]


def test_a_searched_component_is_called_by_its_kind(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path)
    tags = {"metalab.number": 0, "metalab.name": "point 0", "metalab.searched": ["inner.rule"]}
    params = {"inner.rule.kind": "lpg", "inner.rule.size": 8}
    writer.store.open("point", "p", "p", parent=writer.parent.run_id, tags=tags, params=params)
    assert list(sweep_runs(tmp_path, "demo")["inner.rule"]) == ["lpg"]


def test_only_what_is_drawn_is_read_for_a_report(new_store: Any, tmp_path: Path):
    writer = new_store(tmp_path)
    run_id = writer.point(0, {}, {}, 0.5)
    frame = pd.read_parquet(next(tmp_path.glob(f"artifacts/**/{run_id}/artifacts/series.parquet")))
    more = frame.assign(metric="train/of_no_interest")
    writer.frame(run_id, "series.parquet", pd.concat([frame, more]))
    assert set(load_sweep(tmp_path, "demo").series["metric"]) == {*frame["metric"], "train/of_no_interest"}
    assert set(load_sweep(tmp_path, "demo", drawn_only=True).series["metric"]) == set(frame["metric"])


@pytest.mark.parametrize(
    ("objective", "sets"), [("evaluation/train/return", set()), ("final/longer/return", {"longer"})]
)
def test_of_evaluations_a_report_reads_the_best_points_the_baselines_and_the_objectives(
    demo: Path, tmp_path: Path, objective: str, sets: set[str]
):
    root = tmp_path / "copied"
    shutil.copytree(demo, root)
    (file,) = root.glob("artifacts/**/sweep.yaml")
    file.write_text(file.read_text().replace("objective: evaluation/train/return", f"objective: {objective}"))
    whole, drawn = load_sweep(root, "demo"), load_sweep(root, "demo", drawn_only=True)
    assert drawn.config["study"]["objective"] == objective
    for label, found in whole.evaluations.groupby("label"):
        mine = drawn.evaluations[drawn.evaluations["label"] == label]
        assert set(mine["set"]) == (sets if label in ("point 0", "point 2") else set(found["set"]))
    pd.testing.assert_frame_equal(points.objective_table(whole), points.objective_table(drawn))


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
