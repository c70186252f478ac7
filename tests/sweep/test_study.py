import dataclasses
from pathlib import Path

import pytest

from metalab.errors import MetalabError
from metalab.sweep.space import parse_space
from metalab.sweep.study import make_study, sampled_points
from tests.sweep.toy import make_spec

SEARCH = {"outer.rate": "tag(log, interval(0.01, 1.0))", "outer.length": "choice(2, 4)"}


def spec(sampler: str, points: int | None = 4, batch: int | None = 2):
    return make_spec(search=SEARCH, sampler=sampler, points=points, batch=batch)


def test_a_grid_is_one_batch(tmp_path: Path) -> None:
    study = make_study(make_spec(search={"outer.length": "choice(2, 4)"}), tmp_path, "d")
    asked = study.ask()
    assert [(one.number, one.values) for one in asked] == [(0, {"outer.length": 2}), (1, {"outer.length": 4})]
    assert study.ask() == []


def test_single_leaves_the_search_aside(tmp_path: Path) -> None:
    assert [one.values for one in make_study(spec("tpe"), tmp_path, "d", single=True).ask()] == [{}]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_a_restart_neither_repeats_nor_loses_points(tmp_path: Path, sampler: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = make_study(spec(sampler), tmp_path / "whole", "d")
    expected = []
    while batch := whole.ask():
        expected += batch
        for one in batch:
            whole.tell(one, float(one.number))
    (tmp_path / "cut").mkdir()
    first = make_study(spec(sampler), tmp_path / "cut", "d")
    for one in first.ask():
        first.tell(one, float(one.number))
    first.ask()  # asked, never told: killed
    again = make_study(spec(sampler), tmp_path / "cut", "d")
    assert again.finished == 2
    found = again.ask()
    assert found == expected[2:]
    assert len({tuple(one.values.items()) for one in expected}) == 4
    for one in found:
        again.tell(one, 0.0)
    assert again.ask() == []


def test_a_point_that_failed_is_asked_again_by_the_next_call_only(tmp_path: Path) -> None:
    study = make_study(spec("random", points=1), tmp_path, "d")
    (failed,) = study.ask()
    study.tell(failed, None)
    assert study.ask() == []
    assert make_study(spec("random", points=1), tmp_path, "d").ask() == [failed]


def test_a_value_that_is_no_number_ends_the_trial(tmp_path: Path) -> None:
    study = make_study(spec("random", points=1), tmp_path, "d")
    study.tell(study.ask()[0], float("nan"))
    assert make_study(spec("random", points=1), tmp_path, "d").finished == 1


def test_another_space_is_another_study(tmp_path: Path) -> None:
    make_study(spec("random"), tmp_path, "d").ask()
    other = dataclasses.replace(spec("random"), search={"outer.length": "choice(2, 8)"})
    assert [one.number for one in make_study(other, tmp_path, "d").ask()] == [0, 1]


def test_a_sampler_needs_a_number_of_points(tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"study\.points: the tpe sampler needs a number of points"):
        make_study(spec("tpe", points=None), tmp_path, "d")


def test_sampled_points_are_the_same_for_the_same_seed() -> None:
    space = parse_space(SEARCH)
    assert sampled_points(space, "random", 3, 0) == sampled_points(space, "random", 3, 0)
    assert sampled_points(space, "random", 3, 0) != sampled_points(space, "random", 3, 1)
    with pytest.raises(MetalabError, match=r"study\.sampler: got 'ouija'"):
        sampled_points(space, "ouija", 1, 0)
