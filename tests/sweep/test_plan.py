"""Points to programs to packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from metalab.config import load
from metalab.errors import ConfigError
from metalab.sweep.plan import check_spec, compiled_memory, describe, fit_lanes, make_plan, plan_points, split
from tests.config_toys import write

NUMBERS = {
    "inner.gain": "choice(0.1, 0.2)",
    "outer.optimizer.learning_rate": "choice(1, 1e-3)",
    "tasks.spread": "choice(0, 0.5)",
}


def test_points_that_differ_in_numbers_alone_are_one_program(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search=NUMBERS, seeds=3)))
    assert plan.num_points == 8
    assert len(plan.programs) == 1
    (pack,) = plan.programs[0].packs
    assert pack.lanes == 8 * 3
    assert plan.programs[0].differs == ()


def test_a_static_difference_is_another_program(tmp_path: Path) -> None:
    search = {"outer.truncation": "choice(1, 2)", "inner.gain": "choice(0.1, 0.2, 0.3)"}
    plan = make_plan(load(write(tmp_path, search=search)))
    assert [len(program.points) for program in plan.programs] == [3, 3]
    assert [program.differs for program in plan.programs] == [
        ("outer.truncation=1",),
        ("outer.truncation=2",),
    ]


def test_an_optional_number_that_is_absent_is_another_program(tmp_path: Path) -> None:
    search = {"outer.optimizer.max_grad_norm": "1, null"}
    assert len(make_plan(load(write(tmp_path, search=search))).programs) == 2


def test_lanes_are_padded_to_the_devices(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2, 0.3)"}, seeds=1)))
    devices = jax.local_device_count()
    assert plan.programs[0].packs[0].lanes == -(-3 // devices) * devices


def test_max_lanes_makes_packs_of_nearly_equal_size(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search={"inner.gain": "range(0.1, 0.8, 0.1)"})), max_lanes=3)
    assert [len(pack.points) for pack in plan.programs[0].packs] == [3, 3, 1]
    assert plan.most == 3
    numbers = [point.number for pack in plan.programs[0].packs for point in pack.points]
    assert numbers == list(range(7))


def test_split_and_fit() -> None:
    points: Any = list(range(10))
    assert [len(pack) for pack in split(points, 4)] == [4, 4, 2]
    assert [len(pack) for pack in split(points, 6)] == [5, 5]
    assert fit_lanes(bytes_per_lane=100, device_memory=1000) == 8  # 80 % of the memory is used
    assert fit_lanes(bytes_per_lane=10_000, device_memory=1000) == 1


def test_one_point_without_the_search_and_the_first_of_a_grid(tmp_path: Path) -> None:
    spec = load(write(tmp_path, search=NUMBERS, study={"points": 3}))
    assert [point.values for point in plan_points(spec, single=True)[0]] == [{}]
    points, drawn = plan_points(spec)
    assert ([point.number for point in points], drawn) == ([0, 1, 2], False)


def test_a_sampler_is_stood_for_by_a_random_draw(tmp_path: Path) -> None:
    study = {"sampler": "tpe", "points": 4}
    spec = load(write(tmp_path, search={"inner.gain": "interval(0.1, 0.9)"}, study=study))
    points, drawn = plan_points(spec)
    assert drawn
    assert len({point.values["inner.gain"] for point in points}) == 4
    assert "drawn at random here; tpe will choose its own" in describe(make_plan(spec))


def test_sizes_are_exact_and_the_text_says_them(tmp_path: Path) -> None:
    plan = make_plan(load(write(tmp_path, search={"outer.truncation": "choice(1, 2)"}, seeds=1)))
    # One meta-parameter, the gain.
    assert plan.programs[0].meta_params == 1
    text = describe(plan)
    assert "toy: 2 points, 1 seed, 2 programs" in text
    assert "program 1 (outer.truncation=2): 1 point, 1 meta-parameters, state of a lane" in text
    assert "pack 0: 1 point x 1 seed = 1 lane (+1 padding)" in text


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


def test_evaluation_sets_and_baselines_are_checked_too(tmp_path: Path) -> None:
    sets = {"train": {"count": 1, "updates": 1}}
    broken = {"inner": {"kind": "tests.config_toys:Broken"}}
    spec = load(write(tmp_path, evaluation={"sets": sets}, baselines={"bad": broken}))
    with pytest.raises(ConfigError, match=r"baselines\.bad on set\.train: .*Broken.*KeyError.*no such table"):
        check_spec(spec, plan_points(spec)[0])
