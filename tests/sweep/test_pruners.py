"""Pruners: who is given up, when, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metalab.errors import MetalabError
from metalab.spec import Pruner
from metalab.spec import Study as Settings
from metalab.sweep.pruners import make_pruner
from metalab.sweep.space import parse_space
from metalab.sweep.study import Study

SPACE = parse_space({"outer.rate": "range(0, 64)"})
GOOD, BAD = np.array([5.0, 6.0, 7.0, 8.0]), np.array([1.0, 2.0, 3.0, 4.0])


def make(folder: Path, pruner: Pruner, direction: str = "maximize") -> Study:
    how = Settings("grid", None, None, 0, ("train/score",), (direction,), "mean", pruner=pruner)
    return Study.open(how, SPACE, folder / "study.jsonl", 0)


def finish(study: Study, values: np.ndarray, steps: tuple[int, ...] = (10, 20, 30)) -> int:
    """Asks for a point that reports the same at every step and finishes, whatever the pruner says."""
    proposal = study.ask()
    assert proposal is not None
    for step in steps:
        study.report(proposal.number, step, values)
        study.should_prune(proposal.number)
    study.end(proposal.number, "finished", [study.over_seeds(values)], steps=steps[-1])
    return proposal.number


def verdicts(study: Study, values: np.ndarray, steps: tuple[int, ...] = (10, 20, 30)) -> list[bool]:
    """Asks for a point and reports; whether it would be pruned after each step."""
    proposal = study.ask()
    assert proposal is not None
    found = []
    for step in steps:
        study.report(proposal.number, step, values)
        found.append(study.should_prune(proposal.number))
    return found


KINDS = ["median", "successive_halving", "hyperband", "wilcoxon"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_point_is_given_up_and_a_good_one_is_not(tmp_path: Path, kind: str) -> None:
    study = make(tmp_path, Pruner(kind, startup_points=3, warmup_steps=10, outer_steps=30))
    for _ in range(9):
        finish(study, GOOD)
    assert verdicts(study, GOOD + 1.0) == [False, False, False]
    assert any(verdicts(study, BAD))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_minimised_is_better_when_it_is_small(tmp_path: Path, kind: str) -> None:
    study = make(tmp_path, Pruner(kind, startup_points=3, warmup_steps=10, outer_steps=30), "minimize")
    for _ in range(9):
        finish(study, BAD)
    assert verdicts(study, BAD - 1.0) == [False, False, False]
    assert any(verdicts(study, GOOD))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_given_up_before_enough_points_have_finished(tmp_path: Path, kind: str) -> None:
    study = make(tmp_path, Pruner(kind, startup_points=6, warmup_steps=10, outer_steps=30))
    for _ in range(5):
        finish(study, GOOD)
    assert verdicts(study, BAD) == [False, False, False]
    assert verdicts(study, np.full(4, np.nan)) == [False, False, False]
    finish(study, GOOD)
    assert any(verdicts(study, BAD))


@pytest.mark.parametrize("kind", ["median", "wilcoxon"])
def test_nothing_is_given_up_before_it_has_warmed_up(tmp_path: Path, kind: str) -> None:
    study = make(tmp_path, Pruner(kind, startup_points=1, warmup_steps=25))
    finish(study, GOOD)
    assert verdicts(study, BAD) == [False, False, True]
    assert verdicts(study, np.full(4, np.nan)) == [False, False, True]


def test_median_compares_at_the_same_step(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("median", startup_points=1))
    for value in (1.0, 2.0, 3.0):
        finish(study, np.full(4, value))
    assert verdicts(study, np.full(4, 2.5)) == [False, False, False]
    assert verdicts(study, np.full(4, 1.5)) == [True, True, True]
    assert verdicts(study, np.full(4, 1.5), (15,)) == [False]  # nobody else has reported there


def test_successive_halving_lets_one_in_so_many_pass_a_rung(tmp_path: Path) -> None:
    """Rungs at 10 and 30 outer steps: by then a point must be among the best third."""
    study = make(tmp_path, Pruner("successive_halving", startup_points=1, warmup_steps=10))
    for value in range(1, 10):
        finish(study, np.full(4, float(value)))
    assert verdicts(study, np.full(4, 6.5)) == [True, False, True]  # 4th of 10: three pass
    assert verdicts(study, np.full(4, 8.5)) == [False, False, False]


def test_halving_remembers_who_came_so_far_while_it_may_not_prune(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("successive_halving", startup_points=9, warmup_steps=10))
    for number in range(9):
        values = GOOD if number < 4 else BAD
        assert verdicts(study, values, (10,)) == [False]
        study.end(number, "finished", [study.over_seeds(values)])
    assert verdicts(study, BAD, (10,)) == [True]  # of the ten at this rung three may pass


def test_a_point_that_has_diverged_is_given_up_without_comparison(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("median", startup_points=1))
    finish(study, BAD, (30,))
    one = np.array([9.0, np.nan, 9.0, 9.0])
    assert verdicts(study, one, (10, 20)) == [True, True]
    proposal = study.ask()
    assert proposal is not None
    study.report(proposal.number, 10, one)
    study.report(proposal.number, 20, GOOD)  # finite again
    assert not study.should_prune(proposal.number)


def test_wilcoxon_takes_the_luck_of_the_seeds_out(tmp_path: Path) -> None:
    """Seeds differ by thousands and the points by one: pairs tell them apart, means would not."""
    luck = np.array([0.0, 1000.0, -1000.0, 3000.0])
    study = make(tmp_path, Pruner("wilcoxon", startup_points=1))
    finish(study, luck)
    assert verdicts(study, luck - np.array([1.0, 1.5, 2.0, 2.5])) == [True] * 3
    assert verdicts(study, luck + np.array([1.0, -1.5, 2.0, 2.5])) == [False] * 3
    assert verdicts(study, luck) == [False] * 3  # no difference at all


def test_wilcoxon_asks_for_its_p(tmp_path: Path) -> None:
    """Four seeds, all of them worse: p is 1/16. With one of four better at the smallest rank it is 2/16."""
    loss = np.array([1.0, 2.0, 3.0, 4.0])
    (tmp_path / "strict").mkdir()
    usual = make(tmp_path, Pruner("wilcoxon", startup_points=1))
    strict = make(tmp_path / "strict", Pruner("wilcoxon", startup_points=1, p_threshold=0.06))
    for study, expected in ((usual, True), (strict, False)):
        finish(study, GOOD)
        assert verdicts(study, GOOD - loss, (10,)) == [expected]
        assert verdicts(study, GOOD - loss * [-1, 1, 1, 1], (10,)) == [False]


def test_wilcoxon_counts_a_diverged_seed_as_the_worst(tmp_path: Path) -> None:
    how = Settings(
        "grid", None, None, 0, ("a",), ("maximize",), "median", pruner=Pruner("wilcoxon", startup_points=1)
    )
    study = Study.open(how, SPACE, tmp_path / "study.jsonl", 0)
    finish(study, np.array([5.0, 6.0, np.nan, 7.0, 8.0]))
    assert verdicts(study, np.array([4.0, 5.0, np.nan, 5.0, 5.0]), (10,)) == [True]
    assert verdicts(study, np.array([4.0, 5.0, 1.0, 5.0, 5.0]), (10,)) == [False]


def test_wilcoxon_compares_with_the_best_finished_point(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("wilcoxon", startup_points=1))
    finish(study, BAD)
    assert verdicts(study, BAD + 1.0, (10,)) == [False]
    finish(study, GOOD)
    assert verdicts(study, BAD + 1.0, (10,)) == [True]
    assert verdicts(study, BAD + 1.0, (15,)) == [False]  # the best has not reported there
    assert verdicts(study, BAD[:3], (10,)) == [False]  # another number of seeds


def test_hyperband_without_a_budget_waits_for_the_first_point(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("hyperband", startup_points=0, warmup_steps=10))
    assert verdicts(study, BAD) == [False, False, False]


def test_without_a_pruner_nothing_is_kept_of_a_report(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner())
    study.ask()
    before = study.commit()
    study.report(0, 10, BAD)
    assert (study.commit(), study.should_prune(0)) == (before, False)


def test_a_point_that_has_ended_is_not_given_up(tmp_path: Path) -> None:
    study = make(tmp_path, Pruner("median", startup_points=1))
    finish(study, GOOD)
    number = finish(study, BAD)
    assert not study.should_prune(number)


def test_an_unknown_pruner() -> None:
    with pytest.raises(MetalabError, match=r"study\.pruner\.kind: got 'medain', expected none, median"):
        make_pruner(Pruner("medain"))
