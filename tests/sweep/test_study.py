"""Studies: what is asked, what is remembered, and that a cut journal goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metalab.errors import ConfigError, MetalabError
from metalab.spec import Pruner
from metalab.spec import Study as Settings
from metalab.sweep.space import Space, parse_space
from metalab.sweep.study import Proposal, Record, Study, sampled_points

SEARCH = {"outer.rate": "tag(log, interval(0.01, 1.0))", "inner.start": "interval(-1, 1)"}
SPACE = parse_space(SEARCH)
CONDITIONAL = parse_space(
    {
        "outer.rate": "interval(0, 1)",
        "inner.kind": "choice(lpg, a2c)",
        "inner.size, outer.slots": {"search": "choice([8, 2], [16, 1])", "when": {"inner.kind": "lpg"}},
        "inner.bonus": {"search": "interval(1, 2)", "when": {"inner.kind": "a2c"}},
    }
)
GRID = parse_space({"outer.length": "choice(2, 4)", "outer.rate": "choice(0.5, 1.0)"})


def settings(sampler: str = "random", points: int | None = 4, **changes: Any) -> Settings:
    base = Settings(sampler, points, None, 0, ("evaluation/train/return",), ("maximize",), "mean")
    return dataclasses.replace(base, **changes)


def make(folder: Path, how: Settings, space: Space = SPACE, position: int | None = None) -> Study:
    return Study.open(how, space, folder / "study.jsonl", position)


def test_a_grid_is_asked_in_order_and_then_there_is_no_more(tmp_path: Path) -> None:
    study = make(tmp_path, settings("grid", None), GRID)
    assert study.total == 4
    asked = [study.ask() for _ in range(4)]
    assert asked == [Proposal(number, GRID.point(number)) for number in range(4)]
    assert (study.ask(), study.asked) == (None, 4)


def test_points_cut_a_grid_and_a_grid_ends_where_it_ends(tmp_path: Path) -> None:
    assert make(tmp_path, settings("grid", 3), GRID).total == 3
    assert make(tmp_path, settings("grid", 9), GRID).total == 4


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_space_without_keys_is_one_point(tmp_path: Path, sampler: str) -> None:
    study = make(tmp_path, settings(sampler, None), parse_space({}))
    assert (study.total, study.ask(), study.ask()) == (1, Proposal(0, {}), None)


def test_a_list_of_points_is_asked_as_it_stands(tmp_path: Path) -> None:
    points = [{"inner.start": 1}, {"outer.rate": 0.5}]
    study = make(tmp_path, settings("grid", None), parse_space(points))
    assert [study.ask(), study.ask(), study.ask()] == [Proposal(0, points[0]), Proposal(1, points[1]), None]


def test_a_sampler_needs_a_number_of_points(tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"study\.points: the tpe sampler needs a number of points"):
        make(tmp_path, settings("tpe", None))
    with pytest.raises(ConfigError, match=r"has no grid"):
        make(tmp_path, settings("grid", None))


def test_records_say_what_came_of_each_point(tmp_path: Path) -> None:
    study = make(tmp_path, settings(points=6))
    asked = [study.ask() for _ in range(6)]
    study.end(0, "finished", [1.5], steps=10)
    study.end(1, "finished", [float("-inf")], steps=10)
    study.end(2, "pruned", [0.5], steps=4, reason="worse than the median")
    study.end(3, "diverged", None, steps=2)
    study.end(4, "failed", None, reason="XlaRuntimeError: out of memory")
    values = [one.values for one in asked if one]
    expected = [
        Record(0, values[0], "finished", (1.5,), 10),
        Record(1, values[1], "finished", (float("-inf"),), 10),
        Record(2, values[2], "pruned", (0.5,), 4, "worse than the median"),
        Record(3, values[3], "diverged", None, 2),
        Record(4, values[4], "failed", None, 0, "XlaRuntimeError: out of memory"),
        Record(5, values[5], "running"),
    ]
    assert study.records() == expected
    position = study.commit()
    assert make(tmp_path, settings(points=6), position=position).records() == expected


def test_only_finite_values_reach_the_sampler(tmp_path: Path) -> None:
    study = make(tmp_path, settings(points=2, pruner=Pruner("median")))
    for number, value in enumerate([float("nan"), float("inf")]):
        study.ask()
        study.report(number, 1, np.array([value, 1.0]))
        study.end(number, "finished", [value])
    study.commit()
    logs = [json.loads(line) for line in (tmp_path / "study.jsonl").read_text().splitlines()]
    assert not any("intermediate_value" in log for log in logs)
    assert [log["state"] for log in logs if log.get("values", "") is None] == [3, 3]  # TrialState.FAIL
    assert "NaN" not in json.dumps(logs)
    assert "Infinity" not in json.dumps(logs)


def test_telling_an_end_twice_changes_nothing(tmp_path: Path) -> None:
    study = make(tmp_path, settings())
    study.ask()
    study.end(0, "finished", [1.0], steps=3)
    before, position = study.records(), study.commit()
    study.end(0, "failed", None, reason="again")
    assert (study.records(), study.commit()) == (before, position)


def test_a_failed_point_is_run_again_under_its_number(tmp_path: Path) -> None:
    study = make(tmp_path, settings("tpe"), CONDITIONAL)
    first = study.ask()
    study.end(0, "failed", None, reason="killed")
    assert study.retry(0) == first
    assert (study.records()[0].status, study.asked) == ("running", 1)
    study.end(0, "finished", [2.0])
    second = study.ask()
    assert second is not None
    assert second.number == 1
    again = make(tmp_path, settings("tpe"), CONDITIONAL, study.commit())
    assert again.records() == study.records()
    assert again.best(again.records()) == [0]


def test_a_retry_leaves_the_other_points_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    study = make(tmp_path / "a", settings(points=2))
    study.ask()
    study.end(0, "failed", None)
    study.retry(0)
    (tmp_path / "b").mkdir()
    plain = make(tmp_path / "b", settings(points=2))
    plain.ask()
    assert study.ask() == plain.ask()


def test_what_was_not_committed_is_cut_off(tmp_path: Path) -> None:
    study = make(tmp_path, settings())
    study.ask()
    position = study.commit()
    second = study.ask()
    study.commit()
    path = tmp_path / "study.jsonl"
    assert len(path.read_text().splitlines()) > position
    again = make(tmp_path, settings(), position=position)
    assert len(path.read_text().splitlines()) == position
    assert again.asked == 1
    assert again.ask() == second


def test_nothing_is_written_before_a_commit(tmp_path: Path) -> None:
    study = make(tmp_path, settings(), position=0)
    study.ask()
    assert not (tmp_path / "study.jsonl").exists()
    study.commit()
    assert (tmp_path / "study.jsonl").exists()
    assert make(tmp_path, settings(), position=0).asked == 0


def test_a_line_that_a_kill_has_cut_short_is_dropped(tmp_path: Path) -> None:
    study = make(tmp_path, settings())
    study.ask()
    study.commit()
    path = tmp_path / "study.jsonl"
    with path.open("a") as file:
        file.write('{"op_code": 4, "worker')
    assert make(tmp_path, settings()).records() == study.records()
    assert path.read_text().endswith("}\n")


def test_a_journal_that_was_altered_is_refused(tmp_path: Path) -> None:
    study = make(tmp_path, settings())
    study.ask()
    position = study.commit()
    path = tmp_path / "study.jsonl"
    with pytest.raises(MetalabError, match=rf"holds {position} logs where {position + 1} were committed"):
        make(tmp_path, settings(), position=position + 1)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "oops\n", *lines[2:]]))
    with pytest.raises(MetalabError, match=r"study\.jsonl, line 2: not a log \(Expecting value.*--fresh"):
        make(tmp_path, settings(), position=position)


def test_another_question_is_refused_in_words(tmp_path: Path) -> None:
    study = make(tmp_path, settings())
    study.ask()
    study.commit()
    with pytest.raises(
        MetalabError, match=r"study\.direction: this study was begun with maximize and .* mini"
    ):
        make(tmp_path, settings(directions=("minimize",)))
    with pytest.raises(MetalabError, match=r"search: the values \{.*\} of an earlier point are no longer in"):
        make(tmp_path, settings(), parse_space({"inner.other": "interval(0, 1)"}))


def test_more_points_may_be_asked_of_a_study_that_was_done(tmp_path: Path) -> None:
    study = make(tmp_path, settings(points=1))
    study.ask()
    assert study.ask() is None
    study.commit()
    more = make(tmp_path, settings(points=2))
    assert more.ask() is not None


def test_over_seeds_counts_a_diverged_seed_as_the_worst(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    up = make(tmp_path, settings(over_seeds="mean"))
    assert up.over_seeds(values) == -math.inf
    assert up.over_seeds(values[[0, 2]]) == 2.0
    assert make(tmp_path, settings(over_seeds="min")).over_seeds(values) == -math.inf
    # iqm of [-inf, -inf, 1, 3] and median of [-inf, 1, 3]
    assert make(tmp_path, settings(over_seeds="iqm")).over_seeds(values) == -math.inf
    assert make(tmp_path, settings(over_seeds="median")).over_seeds(values[:3]) == 1.0
    down = make(tmp_path, settings(directions=("maximize", "minimize"), objectives=("a", "b")))
    assert (down.over_seeds(values, 0), down.over_seeds(values, 1)) == (-math.inf, math.inf)


def record(number: int, *objective: float, status: Any = "finished") -> Record:
    return Record(number, {}, status, objective or None)


@pytest.mark.parametrize(("direction", "order"), [("maximize", [2, 0, 3, 1]), ("minimize", [1, 0, 3, 2])])
def test_the_best_points_come_first(tmp_path: Path, direction: str, order: list[int]) -> None:
    study = make(tmp_path, settings(directions=(direction,)))
    records = [record(0, 1.0), record(1, 0.0), record(2, 2.0), record(3, 1.0)]
    others = [record(4, math.inf), record(5), record(6, 9.0, status="pruned"), record(7, math.nan)]
    assert study.best([*records, *others]) == order


def test_the_best_of_several_objectives_are_the_front(tmp_path: Path) -> None:
    study = make(tmp_path, settings(objectives=("a", "b"), directions=("maximize", "minimize")))
    records = [record(0, 1.0, 1.0), record(1, 2.0, 3.0), record(2, 0.5, 1.0), record(3, 1.0, 1.0)]
    assert study.best(records) == [1, 0, 3]  # 2 is no better than 0 anywhere; 0 and 3 are the same


# --- A cut journal ----------------------------------------------------------------------------------------

CASES = [
    *itertools.product(["random", "qmc", "tpe", "cmaes", "nsga2"], ["none"], [SPACE], [1]),
    *itertools.product(["random", "tpe", "nsga2"], ["none"], [CONDITIONAL], [1]),
    *itertools.product(
        ["grid"], ["median", "wilcoxon"], [parse_space({"inner.start": "range(0.9, -0.9, -0.05)"})], [1]
    ),
    *itertools.product(["random", "tpe", "cmaes"], ["median"], [SPACE], [1]),
    *itertools.product(["random"], ["successive_halving", "hyperband", "wilcoxon"], [SPACE], [1]),
    *itertools.product(["random", "tpe", "nsga2"], ["none"], [SPACE], [2]),
]


def scores(values: Any, step: int) -> np.ndarray:
    """[S] what the seeds of a point have reached at a step; a few diverge, a pure function of the point."""
    start = float(values.get("inner.start", values.get("outer.rate", 0.0)))
    luck = np.sin(np.arange(5) * 7.0 + 100.0 * start)
    own = -((start - 0.3) ** 2) * step + 0.1 * luck
    return np.where(abs(start) > 0.97, np.nan, own)


def drive(study: Study, objectives: int, rounds: int) -> list[Any]:
    """Some rounds of the engine's: berths are filled, points report, are pruned, fail and finish."""
    said: list[Any] = []
    for _ in range(rounds):
        running = [one for one in study.records() if one.status == "running"]
        while len(running) < 3 and (proposal := study.ask()) is not None:
            said.append(proposal)
            running.append(study.records()[proposal.number])
        for one in running:
            said += live(study, one, objectives)
    return said


def live(study: Study, one: Record, objectives: int, again: bool = False) -> list[Any]:
    for step in (2, 4, 6):
        values = scores(one.values, step)
        study.report(one.number, step, values)
        if study.should_prune(one.number):
            study.end(one.number, "pruned", [study.over_seeds(values)], steps=step)
            return [("pruned", one.number, step)]
    if one.number % 7 == 6 and not again:
        study.end(one.number, "failed", None, steps=6, reason="killed")
        return [study.retry(one.number), *live(study, one, objectives, again=True)]
    final = [study.over_seeds(scores(one.values, 8)) for _ in range(objectives)]
    study.end(one.number, "finished", final, steps=8)
    return [("finished", one.number)]


@pytest.mark.parametrize(("sampler", "pruner", "space", "objectives"), CASES)
def test_a_cut_study_goes_on_as_the_one_that_was_not(
    tmp_path: Path, sampler: str, pruner: str, space: Space, objectives: int
) -> None:
    how = settings(
        sampler,
        36,
        batch=3,
        objectives=("a", "b")[:objectives],
        directions=("maximize", "minimize")[:objectives],
        pruner=Pruner(pruner, startup_points=2, warmup_steps=2, outer_steps=8),
    )
    (tmp_path / "cut").mkdir()
    whole = make(tmp_path, how, space)
    drive(whole, objectives, 5)
    position = whole.commit()
    drive(whole, objectives, 1)  # more is written than the commit that counts
    whole.commit()
    shutil.copy(tmp_path / "study.jsonl", tmp_path / "cut" / "study.jsonl")
    whole = make(tmp_path, how, space, position)
    expected = drive(whole, objectives, 6)
    cut = make(tmp_path / "cut", how, space, position)
    said = drive(cut, objectives, 3)
    cut = make(tmp_path / "cut", how, space, cut.commit())
    said += drive(cut, objectives, 3)
    assert said == expected
    assert cut.records() == whole.records()
    if pruner != "none":
        assert any(one[0] == "pruned" for one in expected if isinstance(one, tuple))


def test_a_study_that_goes_on_equals_one_that_is_opened_at_every_step(tmp_path: Path) -> None:
    how = settings("tpe", 24, pruner=Pruner("median", startup_points=2))
    (tmp_path / "cut").mkdir()
    expected = drive(make(tmp_path, how), 1, 8)
    said, position = [], 0
    for _ in range(8):
        study = make(tmp_path / "cut", how, position=position)
        said += drive(study, 1, 1)
        position = study.commit()
    assert said == expected


def test_samplers_differ_and_do_not_repeat_themselves(tmp_path: Path) -> None:
    seen = {}
    for sampler in ("random", "qmc", "tpe", "cmaes", "nsga2"):
        (tmp_path / sampler).mkdir()
        study = make(tmp_path / sampler, settings(sampler, 15, batch=2))
        said = drive(study, 1, 5)
        seen[sampler] = [tuple(one.values.values()) for one in said if isinstance(one, Proposal)]
        assert len(set(seen[sampler])) >= 15
    assert len({points[-1] for points in seen.values()}) == 5


def test_tpe_learns(tmp_path: Path) -> None:
    study = make(tmp_path, settings("tpe", 60))
    starts = []
    while (proposal := study.ask()) is not None:
        starts.append(float(proposal.values["inner.start"]))
        study.end(proposal.number, "finished", [-((starts[-1] - 0.3) ** 2)])
    assert np.mean(np.abs(np.array(starts[-20:]) - 0.3)) < 0.5 * np.mean(np.abs(np.array(starts[:10]) - 0.3))


def test_a_study_does_not_slow_down_as_it_grows(tmp_path: Path) -> None:
    study = make(tmp_path, settings("random", 2000))

    def seconds(count: int) -> float:
        begun = time.process_time()
        for _ in range(count):
            proposal = study.ask()
            assert proposal is not None
            study.end(proposal.number, "finished", [0.0])
        return time.process_time() - begun

    first = seconds(400)
    seconds(1200)
    assert seconds(400) < 3 * first  # quadratic growth would make it five times and more


def test_sampled_points_are_the_same_for_the_same_seed() -> None:
    assert sampled_points(SPACE, "random", 3, 0) == sampled_points(SPACE, "random", 3, 0)
    assert sampled_points(SPACE, "random", 3, 0) != sampled_points(SPACE, "random", 3, 1)
    assert len(sampled_points(CONDITIONAL, "tpe", 5, 0)) == 5
    with pytest.raises(MetalabError, match=r"study\.sampler: got 'ouija'"):
        sampled_points(SPACE, "ouija", 1, 0)
