"""The report's section on students: whose life is compared, with what, and how soon they are good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.distillation import distilled_sets, learners_on, optimum_of, student_table
from analysis.distillation_section import distillation_parts
from analysis.frames import NLL_SERIES, RUN_COLUMNS, SweepData

HELD_OUT = {"tasks": {"part": "held_out"}, "count": 2, "seed": 2, "updates": 12}
SETS = {
    "train": {"count": 2, "updates": 12},
    "held_out": HELD_OUT,
    "greedy": {**HELD_OUT, "baselines": False},
    "source_life": {**HELD_OUT, "updates": 40, "points": False},
}


def lives(run: str, name: str, curve: np.ndarray, seeds: int = 2) -> pd.DataFrame:
    """Two tasks whose returns are ``curve`` [U], and twice that; the second seed has 1 more."""
    seed, task, update = (part.reshape(-1) for part in np.indices((seeds, 2, len(curve))))
    value = curve[update] * (task + 1) + seed * (update > 0)
    columns = {"seed": seed, "set": name, "task": task, "outer_step": 4, "update": update}
    frame = pd.DataFrame({**columns, "env_steps": 20 * update, "metric": "return", "value": value})
    return frame.assign(run_id=run, label=run, kind="?")


def sweep() -> SweepData:
    """A student that is at 8 from its second update on, and a source that gains 0.25 an update."""
    student = np.asarray([0.0, 2.0] + [8.0] * 11)
    slow = 0.25 * np.arange(41)
    best = lives("optimal", "held_out", np.asarray([8.0]), seeds=1)
    evaluations = [
        *(lives(run, name, student) for run in ("p0", "p1") for name in ("train", "held_out", "greedy")),
        *(lives("source", name, slow[:13]) for name in ("train", "held_out")),
        lives("source", "source_life", slow),
        best,
    ]
    rows: list[dict[str, Any]] = [
        {"run_id": "p0", "kind": "point", "label": "point 0", "number": 0.0, "status": "finished"},
        {"run_id": "p1", "kind": "point", "label": "point 1", "number": 1.0, "status": "finished"},
        {"run_id": "p2", "kind": "point", "label": "point 2", "number": 2.0, "status": "failed"},
        {"run_id": "source", "kind": "baseline", "label": "source", "status": "finished"},
        {"run_id": "optimal", "kind": "baseline", "label": "optimal", "status": "finished"},
    ]
    series = [
        pd.DataFrame(
            {"run_id": "p0", "label": "p0", "seed": seed, "step": [1, 2], "metric": name, "value": 1.0}
        )
        for seed in (0, 1)
        for name in NLL_SERIES.values()
    ]
    return SweepData(
        name="toy",
        root=Path("."),
        parent_id="",
        folder=None,
        parent_tags={},
        config={
            "evaluation": {"sets": SETS, "select": "train"},
            "search": [{}, {"inner.histories.first": 0.9}, {}],
            "study": {"objective": "evaluation/train/return"},
        },
        hardware={},
        searched=("inner.histories.first",),
        runs=pd.DataFrame(rows, columns=[*RUN_COLUMNS, "inner.histories.first", "objective"]),
        parameters=pd.DataFrame(),
        series=pd.concat(series),
        evaluations=pd.concat(evaluations),
        settings={},
        progress=pd.DataFrame(),
    )


def test_a_source_is_shown_with_its_longer_life_where_the_tasks_are_the_same() -> None:
    data = sweep()
    assert distilled_sets(data) == ["train", "held_out", "greedy"]
    lived = {name: [len(one.updates) for one in learners_on(data, name)] for name in distilled_sets(data)}
    assert lived == {"train": [13, 13, 13], "held_out": [13, 13, 41], "greedy": [13, 13, 41]}
    labels = [one.label for one in learners_on(data, "held_out")]
    assert labels == ["student as in the file", "histories.first 0.9", "source"]


def test_the_optimum_is_that_of_the_same_tasks() -> None:
    data = sweep()
    np.testing.assert_allclose(np.asarray(optimum_of(data, "greedy")), [8.0, 16.0])
    assert optimum_of(data, "train") is None
    assert "of_optimum" not in student_table(data, "train")


def test_updates_to_shares_of_the_optimum_and_how_many_the_source_needs() -> None:
    """The optimum is 12 on average. The student's mean over tasks is 3, then 12 (and 1 more)."""
    table = student_table(sweep(), "held_out").set_index("learner")
    student, source = table.loc["student as in the file"], table.loc["source"]
    assert student["end"] == pytest.approx(12.5)
    assert student["of_optimum"] == pytest.approx(12.5 / 12)
    assert student["solved"] == 1.0
    assert student["to_50"] == student["to_70"] == 2.0
    # The source's mean is 0.375 an update (and 1 more): 6 after 16 updates, and after 14.
    assert source["to_50"] == pytest.approx(15.0)
    assert student["faster_50"] == pytest.approx(15.0 / 2.0)
    assert source["solved"] == 1.0  # its tasks end at 8.9 of 8 and 17.8 of 16, or 1 more
    assert np.isnan(source["faster_50"])
    assert source["never_70"] == 0


def test_an_interval_of_updates_does_not_begin_before_birth() -> None:
    """One seed needs 16 updates, the other 1: Student's t interval of the two is 8.5 +- 95."""
    data = sweep()
    early = (data.evaluations["run_id"] == "source") & (data.evaluations["seed"] == 1)
    data.evaluations.loc[early & (data.evaluations["update"] > 0), "value"] += 5.0
    source = student_table(data, "held_out").set_index("learner").loc["source"]
    assert source["to_50"] == pytest.approx(8.5)
    assert source["to_50_low"] == 0.0 and source["to_50_high"] > 100.0


def test_the_section_has_a_table_a_set_and_its_pictures() -> None:
    words, tables, pictures = distillation_parts(sweep())
    assert not words
    assert [table.name for table in tables] == [
        f"students_{name}" for name in ("train", "held_out", "greedy")
    ]
    assert [picture.name for picture in pictures] == ["in_context", "likelihoods"]
