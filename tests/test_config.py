"""Sweep files: composition, overrides, points, evaluation sets, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metalab.config import (
    build_baseline_sets,
    build_evaluation_sets,
    build_suite,
    load,
    make_point,
)
from metalab.errors import ConfigError
from metalab.resources import SWEEPS, suite_names, sweep_names
from metalab.spec import Pruner
from metalab.sweep.space import parse_space
from tests.config_toys import World, write
from tests.toys import Chaser, Targets

SETS = {
    "train": {"count": 2, "updates": 4},
    "far": {"tasks": {"spread": 2}, "count": 3, "updates": 4, "seed": 5},
}


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    spec = load(write(tmp_path, seeds=3, description="why", evaluation={"sets": SETS, "every": 2}))
    assert (spec.name, spec.description, spec.seeds) == ("toy", "why", 3)
    assert (spec.budget.outer_steps, spec.budget.chunk) == (4, 2)
    assert (spec.evaluation.every, spec.evaluation.select) == (2, "train")
    assert (spec.study.sampler, spec.study.objectives) == ("grid", ("evaluation/train/return",))
    assert (spec.study.directions, spec.study.batch, spec.study.pruner) == (("maximize",), None, Pruner())
    assert spec.config["inner"] == {
        "kind": "tests.toys:Chaser",
        "gain": 0.1,
        "noise": 0.0,
        "differentiable": True,
    }
    assert spec.config["outer"]["optimizer"]["kind"] == "adam"


def test_overrides_follow_hydras_grammar_and_need_no_plus_for_a_known_field(tmp_path: Path) -> None:
    path = write(tmp_path, inner={"kind": "tests.toys:Chaser", "noise": 0.5})
    overrides = ["inner.gain=1", "+outer.optimizer.learning_rate=3e-4", "~inner.noise", "seeds=2"]
    spec = load(path, [*overrides, "search.inner.gain=choice(1, 2)"])
    outer: Any = make_point(spec, 0, {}).outer
    assert outer.inner == Chaser(gain=1.0)
    assert outer.optimizer.learning_rate == 3e-4
    assert (spec.seeds, spec.search) == (2, {"inner.gain": "choice(1, 2)"})
    assert load(path, ["search.inner.gain=1,2", "~search.inner.gain"]).search == {}


def test_a_defaults_list_is_composed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "more.yaml").write_text("defaults: [toy, _self_]\nname: more\nseeds: 7\n")
    spec = load(tmp_path / "more.yaml")
    assert (spec.name, spec.seeds, spec.budget.chunk) == ("more", 7, 2)


def test_the_file_itself_names_the_sweep_where_it_says_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, name=None)).name == "toy"


def test_smoke_is_the_files_own_size_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, smoke={"budget": {"outer_steps": 2}, "inner": {"gain": 0.5}})
    small, whole = load(path, smoke=True), load(path)
    assert (small.name, small.budget.outer_steps, small.budget.chunk) == ("toy-smoke", 2, 2)
    assert small.config["inner"]["gain"] == 0.5
    assert (whole.name, whole.budget.outer_steps) == ("toy", 4)
    assert "smoke" not in whole.config
    assert load(path, ["budget.outer_steps=6"], smoke=True).budget.outer_steps == 6


def test_what_refers_to_a_searched_key_follows_it(tmp_path: Path) -> None:
    inner = {"kind": "tests.toys:Chaser", "gain": 0.5, "noise": "${inner.gain}"}
    spec = load(write(tmp_path, inner=inner, search={"inner.gain": "choice(0.25, 0.75)"}))
    outer: Any = make_point(spec, 1, {"inner.gain": 0.75}).outer
    assert outer.inner == Chaser(gain=0.75, noise=0.75)
    assert spec.config["inner"]["noise"] == 0.5


def test_a_searched_key_may_be_a_default_of_a_part_that_the_file_leaves_out(tmp_path: Path) -> None:
    key = "outer.optimizer.learning_rate"
    spec = load(
        write(
            tmp_path, search={key: "tag(log, interval(1e-4, 1e-2))"}, study={"sampler": "random", "points": 2}
        )
    )
    point = make_point(spec, 0, {key: 5e-3})
    assert point.config["outer"]["optimizer"]["learning_rate"] == 5e-3
    assert point.config["outer"]["optimizer"]["b1"] == 0.9


def test_a_whole_component_can_be_searched(tmp_path: Path) -> None:
    text = "choice({kind: sgd, learning_rate: 1}, {kind: adam})"
    spec = load(write(tmp_path, search={"outer.optimizer": text}))
    kinds = [
        make_point(spec, 0, {"outer.optimizer": value}).config["outer"]["optimizer"]["kind"]
        for value in ({"kind": "sgd", "learning_rate": 1}, {"kind": "adam"})
    ]
    assert kinds == ["sgd", "adam"]


def test_a_search_may_zip_keys_and_set_conditions(tmp_path: Path) -> None:
    search = {
        "inner.gain, inner.noise": "choice([0.25, 0.5], [0.75, 0.0])",
        "outer.optimizer": "choice({kind: sgd}, {kind: adam})",
        "outer.optimizer.b1": {"search": "choice(0.8, 0.9)", "when": {"outer.optimizer": {"kind": "adam"}}},
    }
    spec = load(write(tmp_path, search=search))
    assert spec.search == search
    points = [make_point(spec, number, values) for number, values in enumerate(parse_space(spec.search))]
    assert len(points) == 2 * (1 + 2)
    seen: list[Any] = [point.outer for point in points]
    assert [(outer.inner.gain, outer.inner.noise) for outer in seen[::3]] == [(0.25, 0.5), (0.75, 0.0)]
    assert [point.config["outer"]["optimizer"].get("b1") for point in points[:3]] == [None, 0.8, 0.9]


def test_a_search_may_be_a_list_of_points(tmp_path: Path) -> None:
    search = [{"inner.gain": 0.25}, {"inner.gain": "${inner.noise}", "outer.truncation": 3}, {}]
    spec = load(write(tmp_path, inner={"kind": "tests.toys:Chaser", "noise": 0.5}, search=search))
    points = [make_point(spec, number, values) for number, values in enumerate(parse_space(spec.search))]
    outers: list[Any] = [point.outer for point in points]
    assert [(outer.inner.gain, outer.truncation) for outer in outers] == [(0.25, 2), (0.5, 3), (0.1, 2)]


def test_a_search_may_refer_to_the_rest_of_the_file(tmp_path: Path) -> None:
    search = {"outer.truncation": "choice(${budget.chunk}, 1)", "inner.gain": "interval(0, ${inner.noise})"}
    inner = {"kind": "tests.toys:Chaser", "noise": 0.5}
    study = {"sampler": "random", "points": 2}
    spec = load(write(tmp_path, inner=inner, search=search, study=study))
    assert spec.search == {"outer.truncation": "choice(2, 1)", "inner.gain": "interval(0, 0.5)"}


STUDIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"batch": None}),
    ({"sampler": "tpe", "points": 40}, {"batch": 5}),
    ({"sampler": "nsga2", "points": 3}, {"batch": 2}),
    ({"sampler": "cmaes", "points": 40, "batch": 7}, {"batch": 7}),
    ({"sampler": "random", "points": 40}, {"batch": None}),
    (
        {"objective": ["train/score", "final/far/return"], "direction": ["maximize", "minimize"]},
        {"objectives": ("train/score", "final/far/return"), "directions": ("maximize", "minimize")},
    ),
    (
        {"objective": ["train/score", "train/loss"], "direction": "minimize"},
        {"directions": ("minimize", "minimize")},
    ),
    ({"reduce": "mean", "last_fraction": 0.25}, {"reduce": "mean", "last_fraction": 0.25}),
    ({"pruner": "median"}, {"pruner": Pruner("median", outer_steps=4)}),
    ({"pruner": None}, {"pruner": Pruner()}),
    ({"pruner": "hyperband"}, {"pruner": Pruner("hyperband", warmup_steps=4, outer_steps=4)}),
    (
        {"pruner": "successive_halving", "objective": "train/score"},
        {"pruner": Pruner("successive_halving", warmup_steps=2, outer_steps=4)},
    ),
    (
        {"pruner": {"kind": "wilcoxon", "p_threshold": 0.2, "startup_points": 1, "warmup_steps": 2}},
        {"pruner": Pruner("wilcoxon", 1, 2, p_threshold=0.2, outer_steps=4)},
    ),
]


@pytest.mark.parametrize(("study", "expected"), STUDIES)
def test_a_study_section_is_read(tmp_path: Path, study: dict[str, Any], expected: dict[str, Any]) -> None:
    grid = "choice(1, 2)" if study.get("sampler", "grid") == "grid" else "interval(1, 2)"
    search = {"inner.gain": grid, "outer.num_slots": "range(1, 4)"}
    sets = {"sets": SETS, "every": 4}
    read = load(write(tmp_path, search=search, study=study, evaluation=sets, seeds=4)).study
    assert {key: getattr(read, key) for key in expected} == expected


def test_the_digest_names_what_is_computed_and_nothing_else(tmp_path: Path) -> None:
    def digest(overrides: list[str], values: dict[str, Any] | None = None, **changes: Any) -> str:
        return make_point(load(write(tmp_path, **changes), overrides), 0, values or {}).digest

    base = digest([])
    assert len(base) == 64
    assert digest(["name=other", "+description=x", "+report=[cost]", "+study.seed=3"]) == base
    assert digest(["search.inner.gain=1,2"]) == base
    assert digest(["inner.gain=0.1"]) == base  # a default written out
    assert digest(["outer.optimizer.learning_rate=1"]) == digest(["outer.optimizer.learning_rate=1.0"])
    assert digest([], {"inner.gain": 0.2}) == digest(["inner.gain=0.2"])
    for other in (["inner.gain=0.2"], ["seeds=2"], ["budget.outer_steps=8"], ["tasks.lifetime=9"]):
        assert digest(other) != base


def test_evaluation_sets_change_parts_of_tasks_and_learner(tmp_path: Path) -> None:
    sets = {**SETS, "noisy": {"inner": {"noise": 0.5}, "count": 1, "updates": 2, "threshold": -1}}
    tasks = {"kind": "tests.toys:Targets", "spread": 0.5, "lifetime": 6}
    spec = load(write(tmp_path, tasks=tasks, evaluation={"sets": sets}))
    made = build_evaluation_sets(spec, make_point(spec, 0, {"inner.gain": 0.75, "tasks.spread": 0.25}))
    # The tasks are the file's, not the point's: every point is evaluated on the same ones.
    assert made["train"].tasks == Targets(spread=0.5, lifetime=6)
    assert made["far"].tasks == Targets(spread=2.0, lifetime=6)
    assert made["train"].inner == Chaser(gain=0.75)
    assert made["noisy"].inner == Chaser(gain=0.75, noise=0.5)
    assert (made["far"].count, made["far"].seed, made["far"].stride, made["far"].threshold) == (3, 5, 1, None)
    assert made["noisy"].threshold == -1.0


def test_a_sets_learner_lives_in_the_sets_world(tmp_path: Path) -> None:
    sets = {"train": {"count": 1, "updates": 1}, "wide": {"tasks": {"size": 9}, "count": 1, "updates": 1}}
    spec = load(
        write(
            tmp_path,
            inner={"kind": "tests.config_toys:Worldly"},
            tasks={"kind": "tests.config_toys:WorldTargets"},
            evaluation={"sets": sets},
            baselines={"plain": {"inner": {"kind": "tests.config_toys:Worldly", "gain": 1}}},
        )
    )
    made: Any = build_evaluation_sets(spec, make_point(spec, 0, {}))
    assert made["train"].inner.environment == World(size=4)
    assert made["wide"].inner.environment == World(size=9)
    assert "environment" not in spec.config["inner"]
    tuned: Any = build_baseline_sets(spec, spec.baselines[0], {"inner.gain": 0.5})
    assert tuned["wide"].inner.environment == World(size=9)
    assert tuned["wide"].inner.gain == 0.5


def test_baselines_keep_their_settings(tmp_path: Path) -> None:
    tuned = {
        "inner": {"kind": "tests.toys:Chaser"},
        "search": {"inner.gain": "interval(0, 1)"},
        "sampler": "random",
        "points": 7,
    }
    path = write(
        tmp_path, evaluation={"sets": SETS}, baselines={"tuned": tuned, "untrained": {}, "random": None}
    )
    first, *rest = load(path).baselines
    assert first.config["selection"] == "mean_return"
    assert (first.config["points"], first.config["sampler"], first.config["seed"]) == (7, "random", 0)
    assert [(one.name, one.config) for one in rest] == [("untrained", {}), ("random", {})]


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_file_composes(name: str, smoke: bool) -> None:
    spec = load(name, smoke=smoke)
    assert spec.name == name + ("-smoke" if smoke else "")
    assert spec.description
    # What is meta-learned is chosen on training tasks; where nothing is, there is nothing to choose.
    assert spec.evaluation.select == ("train" if spec.evaluation.sets.get("train") else None)


def test_the_sweep_files_are_there() -> None:
    assert {"quickstart", "lpg_gridworld", "lpg_chain", "lpg_es"} <= set(sweep_names())
    assert {"catch", "cartpole", "breakout_minatar"} <= set(suite_names())
    assert load(SWEEPS / "quickstart.yaml").name == "quickstart"


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_fits_the_learner_of_the_quickstart(name: str) -> None:
    made = build_suite(name, load("quickstart").config["inner"])
    assert made.name == name
    assert made.updates % made.stride == 0


def test_a_suite_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tasks: {kind: 'tests.toys:Targets'}\ninner: {noise: 1}\ncount: 2\nupdates: 3\n")
    made = build_suite(str(path), {"kind": "tests.toys:Chaser", "gain": 0.5})
    assert (made.name, made.inner, made.count) == ("mine", Chaser(gain=0.5, noise=1.0), 2)
    with pytest.raises(ConfigError, match=r"there is no evaluation suite 'cach'; did you mean 'catch'\?"):
        build_suite("cach", {})
