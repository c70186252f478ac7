"""Points made from templates are those that ``make_point`` makes, and so are the errors."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from metalab.components import is_component, specs
from metalab.config import PointMaker, load, make_point, maker
from metalab.errors import ConfigError
from metalab.resources import sweep_names
from metalab.spec import Point, SweepSpec
from tests.config_toys import write

Values = Mapping[str, Any]


def outcome(make: Any, *arguments: Any) -> Point | str:
    try:
        return make(*arguments)
    except ConfigError as error:
        return str(error)


def long_way(monkeypatch: pytest.MonkeyPatch) -> list[Values]:
    """The values that are left to ``make_point`` from now on."""
    seen = []

    def counted(spec: SweepSpec, number: int, values: Values) -> Point:
        seen.append(values)
        return make_point(spec, number, values)

    monkeypatch.setattr(maker, "make_point", counted)
    return seen


def check_same(spec: SweepSpec, points: Sequence[Values]) -> None:
    make = PointMaker(spec)
    for number, values in enumerate(points):
        assert outcome(make, number, values) == outcome(make_point, spec, number, values), values


def number_fields(component: Any, path: str) -> Iterator[tuple[str, float]]:
    """(path, value) of every number of a component that is set, and of its parts'."""
    for name, spec in specs(component).items():
        value = getattr(component, name)
        if spec.kind == "part" and is_component(value):
            yield from number_fields(value, f"{path}.{name}")
        elif spec.kind == "number" and type(value) in (int, float):
            yield f"{path}.{name}", value


def all_numbers(spec: SweepSpec) -> dict[str, float]:
    """Searchable key to value, of every number of a sweep file's components."""
    outer: Any = make_point(spec, 0, {}).outer
    sections = {"tasks": outer.tasks, "inner": outer.inner, "outer": outer}
    found = {key: value for name, made in sections.items() for key, value in number_fields(made, name)}
    bound = ("inner.environment.", "outer.inner.", "outer.tasks.")
    return {key: value for key, value in found.items() if not key.startswith(bound)}


@pytest.mark.parametrize("name", sweep_names())
def test_random_points_of_every_sweep_file_are_the_same(name: str) -> None:
    spec = load(name)
    numbers, draw = all_numbers(spec), random.Random(name)
    shapes = {
        "outer.optimizer": [{"kind": "sgd", "learning_rate": 0.5}, {"kind": "adam", "learning_rate": 0.25}],
        "inner.num_envs": [2, 4],
    }
    keys = [*draw.sample(sorted(numbers), min(6, len(numbers))), *shapes]

    def drawn(key: str) -> Any:
        if key in shapes:
            return draw.choice(shapes[key])
        # Around the file's value: some are beyond what is allowed, some whole where a real number is.
        return draw.choice((type(numbers[key])(numbers[key] * draw.uniform(0.5, 1.5)), 1))

    points = []
    for _ in range(15):
        draw.shuffle(keys)
        points.append({key: drawn(key) for key in keys})
    check_same(spec, points)


@pytest.mark.parametrize("name", sweep_names())
def test_every_number_of_every_sweep_file_goes_the_short_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(name)
    left = long_way(monkeypatch)
    assert PointMaker(spec)(3, all_numbers(spec)).number == 3
    assert left == []


def searched(folder: Path, kind: str, **changes: Any) -> SweepSpec:
    """A file around the learner ``tests.points_toys:KIND``."""
    changes.setdefault("inner", {})
    changes["inner"] = {"kind": f"tests.points_toys:{kind}", **changes["inner"]}
    return load(write(folder, **changes))


RATES = [{"inner.gain": gain} for gain in (0.25, 0.5, 1, 0.125)]


def test_what_refers_to_a_number_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "inner": {"kind": "tests.toys:Chaser", "gain": 0.5},
        "tasks": {"kind": "tests.toys:Targets", "spread": "${inner.gain}"},
        "evaluation": {"sets": {"train": {"count": 1, "updates": 1, "inner": "${inner}"}}},
    }
    spec = load(write(tmp_path, **changes))
    check_same(spec, RATES)
    left = long_way(monkeypatch)
    point = PointMaker(spec)(0, {"inner.gain": 0.75})
    assert left == []
    assert point.config["tasks"]["spread"] == 0.75
    assert point.config["evaluation"]["sets"]["train"]["inner"]["gain"] == 0.75


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "at ${inner.gain}"},
        {"report": ["learning_curves", "${inner.gain}"]},
        {"outer": {"kind": "meta_gradient", "truncation": "${inner.gain}", "num_slots": 2}},
    ],
)
def test_what_cannot_be_followed_is_composed_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = {"inner": {"kind": "tests.toys:Chaser", "gain": 1}}
    spec = load(write(tmp_path, **whole))
    raw: Any = {**spec.raw, **changes}
    check_same(dataclasses.replace(spec, raw=raw), [{"inner.gain": 1}, {"inner.gain": 2}, *RATES])


def test_a_number_that_decides_where_an_interpolation_leads(tmp_path: Path) -> None:
    spec = load(write(tmp_path, tasks={"kind": "tests.toys:Targets", "lifetime": 2}))
    raw = {**spec.raw, "report": {"2": "two", "3": "three"}, "description": "${report.${tasks.lifetime}}"}
    spec = dataclasses.replace(spec, raw=raw)
    check_same(spec, [{"tasks.lifetime": 2}, {"tasks.lifetime": 3}, {"tasks.lifetime": 4}])


def test_the_world_follows_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"kind": "tests.points_toys:IceTargets"}
    points = [{"tasks.slip": slip, "tasks.spread": 0.5} for slip in (0.25, 0.75, 2.0)]
    spec = searched(tmp_path, "Skater", tasks=tasks)
    check_same(spec, points)
    left = long_way(monkeypatch)
    outer: Any = PointMaker(spec)(0, points[0]).outer
    assert (outer.inner.environment.slip, outer.tasks.slip, left) == (0.25, 0.25, [])


def test_a_world_of_the_learners_own_takes_the_rest_from_its_tasks(tmp_path: Path) -> None:
    tasks = {"kind": "tests.points_toys:IceTargets"}
    spec = searched(tmp_path, "Skater", tasks=tasks, inner={"environment": {"depth": 2.0}})
    points = [
        {"tasks.slip": slip, "inner.environment.depth": depth} for slip in (0.25, 0.5) for depth in (3, 4)
    ]
    check_same(spec, points)
    outer: Any = PointMaker(spec)(0, points[0]).outer
    assert (outer.inner.environment.slip, outer.inner.environment.depth) == (0.25, 3.0)


def test_a_component_that_fills_itself_in_is_built_anew(tmp_path: Path) -> None:
    spec = searched(tmp_path, "Doubled")
    check_same(spec, RATES)
    outer: Any = PointMaker(spec)(0, {"inner.gain": 0.25}).outer
    assert outer.inner.twice == 0.5


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"inner.gain": 2.0, "inner.bound": 1.0}, "inner: tests.points_toys:Ordered: ValueError: gain = 2.0"),
        ({"inner.gain": 0.5, "inner.noise": -1.0}, "inner.noise: -1.0 is out of range"),
        ({"inner.gain": "much"}, "inner.gain: expected a number, got 'much'"),
        ({"inner.gian": 0.5}, "inner.gian: unknown key"),
        ({"inner.gain.more": 0.5}, "inner.gain.more: inner.gain holds 0.5, which has no keys"),
    ],
)
def test_errors_are_those_of_the_long_way(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    spec = searched(tmp_path, "Ordered", inner={"gain": 0.5})
    make = PointMaker(spec)
    make(0, {"inner.gain": 0.25, "inner.bound": 1.0})
    make(0, {"inner.gain": 0.25, "inner.noise": 1.0})
    with pytest.raises(ConfigError) as caught:
        make(1, values)
    assert f"toy.yaml: {problem}" in str(caught.value)
    assert outcome(make_point, spec, 1, values) == str(caught.value)


def test_keys_are_set_in_their_order(tmp_path: Path) -> None:
    spec = load(write(tmp_path))
    choices = [{"kind": "sgd", "learning_rate": 0.5}, {"kind": "adam", "learning_rate": 0.25}]
    rate, whole = "outer.optimizer.learning_rate", "outer.optimizer"
    points = [{whole: choice, rate: number} for choice in choices for number in (1, 0.1)]
    points += [{rate: number, whole: choice} for choice in choices for number in (1, 0.1)]
    check_same(spec, points)
    make: Any = PointMaker(spec)
    assert make(0, points[1]).outer.optimizer.learning_rate == 0.1
    assert make(0, points[5]).outer.optimizer.learning_rate == 0.5


def test_numbers_share_a_signature_and_nothing_else_does(tmp_path: Path) -> None:
    make = PointMaker(load(write(tmp_path)))
    shapes = [{}, {"outer.truncation": 1}, {"outer.truncation": 2}, {"inner.differentiable": True}]
    shapes += [{"inner.differentiable": False}, {"inner.gain": 0.5}]
    assert len({make.signature(values) for values in shapes}) == len(shapes)
    assert len({make.signature({"inner.gain": gain, "outer.truncation": 2}) for gain in (1, 0.5, 0.25)}) == 1
    assert make.signature({"outer.optimizer.max_grad_norm": 1.0}) != make.signature(
        {"outer.optimizer.max_grad_norm": None}
    )


def test_a_template_is_kept_from_changes_to_its_points(tmp_path: Path) -> None:
    make = PointMaker(load(write(tmp_path)))
    first = make(0, {"inner.gain": 0.5})
    second = make(1, {"inner.gain": 0.25})
    assert first.config["inner"]["gain"] == 0.5
    assert (first.digest == second.digest, first.outer == second.outer) == (False, False)
    assert make(2, {"inner.gain": 0.5}).digest == first.digest


def test_more_templates_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "_MOST_TEMPLATES", 2)
    points = [{"outer.truncation": size, "inner.gain": 0.5} for size in (1, 2, 3, 4, 1, 2)]
    check_same(load(write(tmp_path)), points)


def test_a_search_that_refers_to_something_is_resolved(tmp_path: Path) -> None:
    inner = {"kind": "tests.toys:Chaser", "gain": 0.5}
    plain = {"inner.gain": "choice(0.5, 0.25)"}
    spec = load(write(tmp_path, inner=inner, search={**plain, "inner.noise": "choice(${inner.gain}, 1)"}))
    assert make_point(spec, 0, {}).config["search"]["inner.noise"] == "choice(0.5, 1)"
    check_same(spec, [{"inner.gain": 0.5}, {"inner.gain": 0.25, "inner.noise": 0.125}])
    assert make_point(load(write(tmp_path, search=plain)), 0, {}).config["search"] == plain


def test_a_listed_point_may_have_keys_of_its_own(tmp_path: Path) -> None:
    points = [{"inner.gain": 0.5}, {"inner.noise": 0.5}, {"outer.truncation": 1, "inner.gain": 0.5}]
    spec = load(write(tmp_path, search=points))
    check_same(spec, points)
    assert make_point(spec, 0, points[0]).config["search"] == points
