"""Points to programs, and how many of them run at once."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from metalab.components import as_arrays
from metalab.config import load, make_point
from metalab.errors import ConfigError
from metalab.sweep import plan as planning
from metalab.sweep.memory import berths_for, compiled_memory, device_memory, fit_lanes, sizes
from metalab.sweep.plan import check_spec, describe, make_plan, plan_points
from metalab.sweep.survey import survey
from tests.config_toys import write

NUMBERS = {
    "inner.gain": "choice(0.1, 0.2)",
    "outer.optimizer.learning_rate": "choice(1, 1e-3)",
    "tasks.spread": "choice(0, 0.5)",
}


def test_points_that_differ_in_numbers_alone_are_one_program(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search=NUMBERS, seeds=3)))
    assert plan.num_points == 8
    (program,) = plan.programs
    assert (program.count, program.berths, program.lanes) == (8, 8, 8 * 3)
    assert (program.example.number, program.differs) == (0, ())


def test_a_static_difference_is_another_program(tmp_path: Path) -> None:
    search = {"outer.truncation": "choice(1, 2)", "inner.gain": "choice(0.1, 0.2, 0.3)"}
    plan = make_plan(load(write(tmp_path, search=search)))
    assert [program.count for program in plan.programs] == [3, 3]
    assert [program.differs for program in plan.programs] == [
        ("outer.truncation=1",),
        ("outer.truncation=2",),
    ]
    assert [program.example.number for program in plan.programs] == [0, 3]


def test_an_optional_number_that_is_absent_is_another_program(tmp_path: Path) -> None:
    search = {"outer.optimizer.max_grad_norm": "1, null"}
    assert len(make_plan(load(write(tmp_path, search=search))).programs) == 2


def test_lanes_are_padded_to_the_devices(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2, 0.3)"}, seeds=1)))
    devices = jax.local_device_count()
    assert plan.programs[0].lanes == -(-3 // devices) * devices


@pytest.mark.parametrize(
    ("study", "max_lanes", "berths"), [({}, 3, 3), ({"batch": 2}, None, 2), ({"batch": 2}, 1, 1), ({}, 99, 7)]
)
def test_what_limits_the_points_at_once(
    tmp_path: Path, study: dict[str, int], max_lanes: int | None, berths: int
) -> None:
    search = {"inner.gain": "range(0.1, 0.8, 0.1)"}
    (program,) = make_plan(load(write(tmp_path, search=search, study=study)), max_lanes=max_lanes).programs
    assert (program.count, program.berths) == (7, berths)


def test_as_many_points_at_once_as_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = plan_points(load(write(tmp_path)))[0][0].outer
    state_bytes, _ = sizes(outer)
    devices = jax.local_device_count()
    # Room for 10 lanes on each device, at four times the state and 80 % of the memory.
    monkeypatch.setattr("metalab.sweep.memory.device_memory", lambda num_devices: 50 * state_bytes)
    assert berths_for(outer, seeds=1, most=1000) == 10 * devices
    assert berths_for(outer, seeds=2, most=1000) == 5 * devices
    assert berths_for(outer, seeds=2, most=3) == 3
    # One point more than there is room for: two turns of half as many.
    assert berths_for(outer, seeds=1, most=10 * devices + 1) == 5 * devices + 1
    assert berths_for(outer, seeds=1000, most=3) == 1


def test_fit_lanes_and_the_memory_of_a_device() -> None:
    assert fit_lanes(bytes_per_lane=100, device_memory=1000) == 8  # 80 % of the memory is used
    assert fit_lanes(bytes_per_lane=10_000, device_memory=1000) == 1
    assert device_memory(1) >= device_memory(2) > 2**20


def test_one_point_without_the_search_and_the_first_of_a_grid(tmp_path: Path) -> None:
    spec = load(write(tmp_path, search=NUMBERS, study={"points": 3}))
    assert [point.values for point in plan_points(spec, single=True)[0]] == [{}]
    (group,) = survey(spec).groups
    assert (group.count, group.common) == (3, {"inner.gain": 0.1})
    points, drawn = plan_points(spec)
    assert ([point.number for point in points], drawn) == ([0], False)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_is_stood_for_by_a_random_draw(tmp_path: Path, sampler: str) -> None:
    search = {
        "inner.gain": "interval(0.1, 0.9)",
        "inner.noise": "tag(log, interval(1e-3, 1))",
        "outer.truncation": "int(interval(1, 3))",
        "outer.num_slots": "tag(log, int(interval(1, 2)))",
        "tasks.lifetime": "range(3, 5)",
        "tasks.spread": "choice(0, 0.5)",
    }
    spec = load(write(tmp_path, search=search, study={"sampler": sampler, "points": 200}))
    found = survey(spec)
    assert found.drawn
    assert sum(group.count for group in found.groups) == 200
    # 3 truncations x 2 numbers of slots x 2 lifetimes: 200 draws meet all of them.
    assert len(found.groups) == 12
    again = [(group.count, group.example) for group in survey(spec).groups]
    assert again == [(group.count, group.example) for group in found.groups]
    assert f"drawn at random here; {sampler} will choose its own" in describe(make_plan(spec))


def test_every_point_of_a_plan_is_built(tmp_path: Path) -> None:
    inner = {"kind": "tests.points_toys:Ordered", "gain": 0.5, "bound": 2}
    # Each value fits the file's others; the last point's two do not fit each other.
    spec = load(write(tmp_path, inner=inner, search={"inner.gain": "0.5, 1.5", "inner.bound": "2, 1"}))
    with pytest.raises(ConfigError, match=r"toy\.yaml: inner: .*gain = 1\.5 is above bound = 1\.0"):
        plan_points(spec)


def test_zipped_and_conditional_keys_and_lists_of_points(tmp_path: Path) -> None:
    search = {
        "outer.truncation, outer.num_slots": "choice([1, 4], [2, 2])",
        "inner.gain": {"search": "choice(0.1, 0.2, 0.3)", "when": {"outer.truncation": 2}},
    }
    programs = make_plan(load(write(tmp_path, search=search))).programs
    assert [program.count for program in programs] == [1, 3]
    assert programs[1].differs == ("outer.truncation=2", "outer.num_slots=2")

    points = [{"inner.gain": 0.5}, {"outer.truncation": 1, "inner.gain": 0.1}, {"inner.noise": 1}]
    programs = make_plan(load(write(tmp_path, search=points))).programs
    assert [(program.count, program.differs) for program in programs] == [
        (2, ()),
        (1, ("outer.truncation=1", "inner.gain=0.1")),
    ]


def test_ten_thousand_points(tmp_path: Path) -> None:
    search = {
        "outer.truncation": "range(1, 6)",
        "inner.differentiable": "choice(true, false)",
        "inner.gain": "range(0, 1, 0.02)",
        "inner.noise": "range(0, 1, 0.05)",
    }
    spec = load(write(tmp_path, search=search, inner={"kind": "tests.toys:Chaser"}))
    groups = survey(spec).groups
    assert [group.count for group in groups] == [50 * 20] * 10
    last = groups[-1].example
    assert last == make_point(spec, 9000, last.values)
    assert dict(last.values) == {
        "outer.truncation": 5,
        "inner.differentiable": False,
        "inner.gain": 0.0,
        "inner.noise": 0.0,
    }


def test_sizes_are_exact_and_the_text_says_them(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search={"outer.truncation": "choice(1, 2)"}, seeds=1)))
    # One meta-parameter, the gain.
    assert plan.programs[0].meta_params == 1
    outer = as_arrays(plan.programs[1].example.outer)
    state = outer.init(jax.random.key(0))
    assert plan.programs[1].state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    text = describe(plan)
    assert "toy: 2 points, 1 seed, 2 programs" in text
    assert "search: outer.truncation = choice(1, 2)" in text
    assert (
        "program 1 (outer.truncation=2): 1 point, 1 at once x 1 seed = 1 lane (+1 padding), "
        "1 meta-parameters, state of a lane"
    ) in text


def test_xla_says_the_memory_of_a_chunk(tmp_path: Path) -> None:
    spec = load(write(tmp_path, outer={"kind": "fixed", "truncation": 2, "num_slots": 2}))
    outer = plan_points(spec)[0][0].outer
    one, four = (compiled_memory(outer, lanes, chunk=2) for lanes in (1, 4))
    assert one.arguments > 0
    assert four.arguments > 2 * one.arguments


def test_an_inner_loop_without_gradient_is_refused_by_name(tmp_path: Path) -> None:
    spec = load(write(tmp_path, inner={"kind": "tests.toys:Chaser", "differentiable": False}))
    with pytest.raises(ConfigError) as caught:
        check_spec(spec, plan_points(spec)[0])
    message = str(caught.value)
    assert "toy.yaml: outer: outer loop 'MetaGradient'" in message
    assert "Chaser" in message
    assert "\n" not in message


def test_only_the_program_at_fault_is_named(tmp_path: Path) -> None:
    spec = load(write(tmp_path, search={"inner.differentiable": "choice(true, false)"}))
    with pytest.raises(
        ConfigError, match=r"outer \(at inner\.differentiable=False\): outer loop 'MetaGradient'"
    ):
        check_spec(spec, plan_points(spec)[0])


def test_of_programs_that_differ_in_sizes_the_first_and_the_last_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"outer.truncation": "range(1, 6)", "outer.optimizer.max_grad_norm": "1, null"}
    spec = load(write(tmp_path, search=search))
    points = plan_points(spec)[0]
    assert len(points) == 10
    checked = []
    monkeypatch.setattr(planning, "check_outer", checked.append)
    check_spec(spec, points)
    assert [(loop.truncation, loop.optimizer.max_grad_norm) for loop in checked] == [
        (1, 1.0),
        (1, None),
        (5, 1.0),
        (5, None),
    ]


def test_evaluation_sets_and_baselines_are_checked_too(tmp_path: Path) -> None:
    sets = {"train": {"count": 1, "updates": 1}}
    broken = {"inner": {"kind": "tests.config_toys:Broken"}}
    spec = load(write(tmp_path, evaluation={"sets": sets}, baselines={"bad": broken}))
    with pytest.raises(ConfigError, match=r"baselines\.bad on set\.train: .*Broken.*KeyError.*no such table"):
        check_spec(spec, plan_points(spec)[0])
