"""The comparison of soft constraints: methods told from settings, pairs, intervals, figures asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import constraints
from analysis.constraint_section import constraint_parts
from analysis.constraints import FIXED, METAL, RC
from analysis.frames import CONSTRAINED, SweepData

FLAT, FALLING = [0, 0, 0], [0, -0.6, -1.2]
SETTINGS: dict[str, dict[str, Any]] = {
    RC: {},
    FIXED: {"rate": 0.0},
    METAL: {"tuned": ["rate"]},
    "MeSh": {"tuned": ["scale", "offset"]},
    "threshold, outer value": {"tuned": ["shift"], "outer_loss": "value"},
    "tuned shift, rate": {"tuned": ["shift", "rate"]},
    "decay(1000)": {"schedule": FALLING},
    "decay(30)": {"schedule": [0, -20, -40]},
    "open loop": {"schedule": [0, -0.6, -0.7]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_tell_the_method(name):
    """600 gradient steps apart and 0.6 lower each: a time constant of 1000."""
    plain = {"tuned": [], "outer_loss": "critic", "rate": 0.1, "schedule": FLAT, "spacing": 600.0}
    assert constraints.method_of(plain | SETTINGS[name]) == name


def lives(scores: dict[str, Any]) -> pd.DataFrame:
    """Two tasks, three seeds, two initial multipliers, three rates; by task, seed, rate and start."""
    rows = []
    for method, score in scores.items():
        for task in range(2):
            for seed in range(3):
                for start in (0.0, 1.0):
                    for rate in (0.0,) if method == FIXED else (0.001, 0.01, 0.1):
                        where = {"task": f"task {task}", "seed": seed, "start": start, "rate": rate}
                        found = float(score(task, seed, rate, start))
                        ends = {"return": found + 1.0, "overshoot": 0.01, "cost": 0.11}
                        peak = {"peak": 2.0 if method == METAL else 8.0, "multiplier": 1.0, "last_rate": rate}
                        rows.append({"run_id": "", "method": method, "score": found} | where | ends | peak)
    return pd.DataFrame(rows)


def test_pairs_are_of_one_task_seed_start_and_rate():
    """MetaL scores 10 less at the smallest rate, RC 5 less at the others, and 1 less for each seed."""
    level = lambda task, seed, rate, start: 50 + 20 * task + 3 * seed + 2 * start  # noqa: E731
    frame = lives(
        {
            METAL: lambda *at: level(*at) - 10 * (at[2] < 0.01),
            RC: lambda *at: level(*at) - 5 * (at[2] >= 0.01) - at[1],
            FIXED: lambda *at: level(*at),
        }
    )
    found = constraints.paired(frame, METAL, RC, [0.01, 0.1])
    assert found is not None
    assert float(found.estimate) == pytest.approx(5.0 + 1.0)  # the mean of seeds 0, 1 and 2
    assert 5.0 <= float(found.low) < 6.0 < float(found.high) <= 7.0
    low = constraints.paired(frame, METAL, RC, [0.001])
    assert low is not None and float(low.estimate) == pytest.approx(-10.0 + 1.0)
    fixed = constraints.paired(frame, METAL, FIXED, [0.001, 0.01, 0.1])
    assert fixed is not None and float(fixed.estimate) == pytest.approx(-10.0 / 3.0)
    assert constraints.paired(frame, METAL, "decay(1000)", [0.1]) is None


def test_the_figures_asked_for():
    frame = lives(
        {
            METAL: lambda task, seed, rate, start: 50.0 + seed - 3.0 * (rate < 0.01),
            RC: lambda task, seed, rate, start: 44.0 + seed + 6.0 * (rate < 0.01),
            "decay(1000)": lambda task, seed, rate, start: 49.0 + seed,
        }
    )
    figures = constraints.acceptance(frame)
    np.testing.assert_allclose(figures["value"], [6.0, 1.0, 0.25, 0.5])
    assert figures["met"].tolist() == [True, False, True, True]
    # Differences were asked for from 0.01 on, whatever rates there are besides.
    without = constraints.acceptance(frame.query("rate >= 0.01"))
    np.testing.assert_allclose(without["value"][:2], figures["value"][:2])
    assert without["figure"].tolist() == figures["figure"].tolist()
    assert constraints.acceptance(frame.query(f"method == {RC!r}")).empty


def test_a_constraint_binds_where_no_constraint_falls_short_by_a_fifth_of_the_best_return():
    """Best multiplier 1 in both tasks, of return 75: 60 against 45 is 15 / 75, 60 against 57 is 3 / 75."""
    scores = {(0, 0.0): 45.0, (1, 0.0): 57.0}
    frame = lives({FIXED: lambda task, seed, rate, start: scores.get((task, start), 60.0)})
    frame["return"] = np.where(frame["start"] == 1.0, 75.0, 90.0)
    found = constraints.binding(frame)
    np.testing.assert_allclose(found["shortfall"], [0.2, 0.04])
    assert found["binds"].tolist() == [True, False]
    assert found["best_start"].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(found[["earned", "return"]], [[75.0, 90.0]] * 2)
    assert constraints.binding(frame.query("start == 0")).empty


def test_whether_a_constraint_binds_does_not_hang_on_the_sign_of_the_score():
    """A limit that cannot be kept takes as much from every score: the shares are as they were."""
    scores = {(0, 0.0): 45.0, (1, 0.0): 57.0}
    frame = lives({FIXED: lambda task, seed, rate, start: scores.get((task, start), 60.0) + seed})
    frame["return"] = 75.0
    kept, never = constraints.binding(frame), constraints.binding(frame.assign(score=frame["score"] - 100.0))
    shares = ["shortfall", "shortfall_low", "shortfall_high"]
    np.testing.assert_allclose(never[shares], kept[shares])
    assert never["binds"].tolist() == [True, False]
    # Where nothing is earned there is no share.
    nothing = constraints.binding(frame.assign(**{"return": -1.0}))
    assert np.isnan(nothing[shares].to_numpy(float)).all()
    assert nothing["binds"].tolist() == [False, False]


def stored(points: list[dict[str, Any]], seeds: int = 2, steps: int = 8) -> SweepData:
    """A sweep whose points' series are ``level + seed`` at every step but the first six, which are 0."""
    runs, params, series = [], {}, []
    for number, point in enumerate(points):
        run = f"run{number}"
        runs.append({"run_id": run, "kind": "point", "label": run, "status": point.get("status", "finished")})
        plain = {"tuned": "[]", "outer_loss": "critic", "multiplier.rate": "0.1", "multiplier.start": "0.0"}
        plain |= {"multiplier.schedule": "[0, 0, 0]", "multiplier.spacing": "600.0"} | point["inner"]
        world = {"tasks.tasks.kind": "cart_pole_goals", "tasks.tasks.start": point.get("place", "0.0")}
        params[run] = {f"inner.{key}": value for key, value in plain.items()} | world
        for metric in CONSTRAINED.values():
            for seed in range(seeds):
                for step in range(steps):
                    value = 0.0 if step < 6 else point["level"] + seed
                    series.append(
                        {"run_id": run, "seed": seed, "step": step, "metric": metric, "value": value}
                    )
    return SweepData(
        name="demo", root=Path(), parent_id="", folder=None, parent_tags={}, config={}, hardware={},
        searched=(),
        runs=pd.DataFrame(runs), parameters=pd.DataFrame.from_dict(params, orient="index"),
        series=pd.DataFrame(series), evaluations=pd.DataFrame(), settings={}, progress=pd.DataFrame(),
    )  # fmt: skip


POINTS: list[dict[str, Any]] = [
    {"inner": {"tuned": "['rate']"}, "level": 7.0},
    {"inner": {}, "level": 5.0},
    {"inner": {"multiplier.rate": "0.0"}, "level": 4.0},
    {"inner": {"multiplier.rate": "0.0", "multiplier.start": "1.0"}, "level": 6.0},
    {"inner": {}, "level": 1.0, "status": "failed"},
]


def test_a_life_is_scored_by_its_last_quarter():
    frame = constraints.lives_of(stored(POINTS))
    assert frame["method"].tolist() == [METAL] * 2 + [RC] * 2 + [FIXED] * 4
    np.testing.assert_allclose(frame["score"], [7, 8, 5, 6, 4, 5, 6, 7])
    np.testing.assert_allclose(frame["start"], [0, 0, 0, 0, 0, 0, 1, 1])
    assert set(frame["task"]) == {"cart_pole_goals"}


def test_tasks_of_one_kind_are_told_apart_by_their_settings():
    data = stored([POINTS[0], POINTS[1] | {"place": "-1.0"}])
    assert set(constraints.tasks_of(data).values()) == {
        "cart_pole_goals, start 0.0",
        "cart_pole_goals, start -1.0",
    }


def test_differences_stand_under_their_rate():
    """MeSh ran from 0.1 alone, MetaL from 0.01 as well."""
    points: list[dict[str, Any]] = [
        {"inner": {"tuned": "['rate']"}, "level": 7.0},
        {"inner": {"tuned": "['rate']", "multiplier.rate": "0.01"}, "level": 6.0},
        {"inner": {"tuned": "['scale', 'offset']"}, "level": 9.0},
        {"inner": {}, "level": 5.0},
        {"inner": {"multiplier.rate": "0.01"}, "level": 5.0},
    ]
    table = next(one for one in constraint_parts(stored(points))[1] if one.name == "paired")
    assert table.columns[1:] == ["all", "rate 0.01", "rate 0.1"]
    shown = {row[0]: [cell.split(" ")[0] for cell in row[1:]] for row in table.rows}
    assert shown == {f"{METAL} - {RC}": ["1.5", "1.0", "2.0"], f"MeSh - {RC}": ["4.0", "-", "4.0"]}


def test_the_section_shows_what_there_is():
    words, tables, pictures = constraint_parts(stored(POINTS))
    assert [table.name for table in tables] == ["acceptance", "binding", "paired", "methods"]
    assert [picture.name for picture in pictures] == ["multiplier_profile", "multipliers_over_time"]
    assert f"{METAL} is ahead of {RC} at initial rates 0.1." in words
    assert tables[2].rows[0][0] == f"{METAL} - {RC}"
    assert tables[2].rows[0][1].startswith("2.0")
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    nothing = constraint_parts(stored([POINTS[4]]))
    assert nothing == (["No life was stored whole, so there is nothing to compare."], [], [])
