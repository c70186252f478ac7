"""How a sweep stands, read from its folder while others may be writing there."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalab.errors import MetalabError
from metalab.sweep.overview import Overview, objectives_of, read_overview, sweep_folder, sweep_folders
from metalab.sweep.reading import best_first, read_study_log
from metalab.sweep.space import parse_space
from tests.sweep import toy
from tests.sweep.folders import SEARCH, beat, commit, open_study, settings


def half_way(root: Path, **changes: Any) -> Path:
    """Six points: one finished, one pruned, one diverged, one failed, one running, one to come."""
    folder = root / "toy"
    study = open_study(folder, settings())
    for _ in range(5):
        study.ask()
    study.end(0, "finished", [0.5], steps=10)
    study.end(1, "pruned", [0.9], steps=4, reason="by median at step 4")
    study.end(2, "diverged", None, steps=6, reason="not finite in every seed by step 5")
    study.end(3, "failed", None, reason="no memory")
    commit(folder, study, **{"seated": {4: 6}, "steps_per_s": 4.0, **changes})
    return folder


def test_a_sweep_half_way(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    beat(folder, age=3.0)
    found = read_overview(folder, tmp_path)
    assert found.name == "toy"
    assert found.points == 6
    assert found.counts == {
        "finished": 1, "pruned": 1, "diverged": 1, "failed": 1, "running": 1, "waiting": 1,
    }  # fmt: skip
    assert found.state == "running"
    assert found.engine is not None
    assert found.engine.age == pytest.approx(3.0, abs=1.0)
    # One point with 4 of 10 outer steps to do and one with all 10, two seeds each, at 4 lane steps a second.
    assert found.seconds_left == pytest.approx((4 + 10) * 2 / 4.0)
    assert not found.at_most
    # Pruned at 0.9, but only what has finished can be best.
    (best,) = found.best
    assert (best.number, best.objective) == (0, (0.5,))
    assert set(best.values) == {"inner.gain", "outer.rate"}
    assert found.objectives == ("train/score",)


@pytest.mark.parametrize(
    ("age", "host", "alive"),
    [(3.0, None, True), (3.0, "another-host", True), (90.0, "another-host", False), (90.0, None, False)],
)
def test_a_heartbeat_tells_the_living(tmp_path: Path, age: float, host: str | None, alive: bool) -> None:
    folder = half_way(tmp_path)
    beat(folder, age=age, host=host)
    found = read_overview(folder, tmp_path)
    assert found.state == ("running" if alive else "interrupted")
    assert found.engine is not None
    assert found.engine.alive is alive


def test_a_process_that_is_gone_is_dead_at_once(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    beat(folder, pid=ended.pid)
    assert read_overview(folder, tmp_path).state == "interrupted"


def test_who_let_go_has_stopped_or_ended(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    (folder / "lock").touch()
    assert read_overview(folder, tmp_path).state == "stopped"
    ended = tmp_path / "ended"
    study = open_study(ended, settings("grid", None), {})
    study.ask()
    study.end(0, "finished", [1.0], steps=10)
    commit(ended, study, search={})
    found = read_overview(ended, tmp_path)
    assert (found.state, found.engine, found.best[0].values) == ("ended", None, {})
    # A baseline that is not done yet is something left to do.
    commit(ended, study, search={}, config={"baselines": {"a2c": {}, "random": {}}}, baselines=("r",))
    found = read_overview(ended, tmp_path)
    assert (found.state, found.baselines_done, found.baselines) == ("stopped", 1, 2)


@pytest.mark.parametrize(
    ("study", "at_most"),
    [
        ({}, False),
        ({"pruner": "none"}, False),
        ({"pruner": "median"}, True),
        ({"pruner": {"kind": "wilcoxon"}}, True),
    ],
)
def test_a_pruner_makes_the_time_left_an_upper_bound(
    tmp_path: Path, study: dict[str, Any], at_most: bool
) -> None:
    assert read_overview(half_way(tmp_path, config={"study": study}), tmp_path).at_most is at_most


def test_what_lies_behind_the_commit_has_not_happened_and_nothing_is_touched(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    study = open_study(folder, settings())
    study.end(4, "finished", [99.0], steps=10)
    study.commit()
    with (folder / "study.jsonl").open("a") as file:
        file.write('{"op_code": 4, "half a li')
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    found = read_overview(folder, tmp_path)
    assert [one.number for one in found.best] == [0]
    assert found.counts["running"] == 1
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_records_that_wait_for_the_store(tmp_path: Path) -> None:
    folder = half_way(tmp_path, outbox=12)
    # Four operations of four bytes; the last one is not committed.
    (folder / "outbox.jsonl").write_text("one\ntwo\nthr\nfou\n")
    assert read_overview(folder, tmp_path).records_waiting == 3
    (folder / "outbox.ack").write_text("8")
    (folder / "outbox.rejected.jsonl").write_text("{}\n{}\n")
    found = read_overview(folder, tmp_path)
    assert (found.records_waiting, found.records_refused) == (1, 2)


def test_a_sweep_that_has_only_begun(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    (folder / "commit.json").unlink()
    found = read_overview(folder, tmp_path)
    assert (found.counts["waiting"], found.best, found.seconds_left, found.committed) == (6, (), None, 0.0)


def test_a_point_that_ran_again_counts_as_it_is_now(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    study = open_study(folder, settings())
    study.retry(3)
    study.end(3, "finished", [0.7], steps=10)
    commit(folder, study)
    found = read_overview(folder, tmp_path)
    assert (found.counts["failed"], found.best[0].number) == (0, 3)


@pytest.mark.parametrize("sampler", ["grid", "list", "random", "qmc", "tpe", "conditional"])
def test_the_journal_means_what_the_study_says(tmp_path: Path, sampler: str) -> None:
    searches: dict[str, Any] = {
        "grid": {"inner.gain": "choice(0.1, 0.2)", "outer.slots": "range(1, 4)"},
        "list": [{"inner.gain": 1}, {"inner.gain": 2, "outer.rate": 0.5}, {"outer.rule": {"kind": "a2c"}}],
        "conditional": {
            "inner.rule": "choice({kind: lpg}, {kind: a2c})",
            "inner.size, outer.slots": {
                "search": "choice([8, 2], [16, 1])",
                "when": {"inner.rule": {"kind": "lpg"}},
            },
            "outer.count": "int(interval(1, 8))",
        },
    }
    search = searches.get(sampler, SEARCH)
    how = settings(
        {"list": "grid", "conditional": "random"}.get(sampler, sampler),
        None if sampler in ("grid", "list") else 5,
    )
    study = open_study(tmp_path, how, search)
    while (proposal := study.ask()) is not None:
        statuses = ["finished", "pruned", "failed", "diverged"]
        objective = [float("-inf") if proposal.number == 1 else 0.1 * proposal.number]
        study.end(proposal.number, statuses[proposal.number % 4], objective, steps=3, reason="so")  # pyright: ignore
    log = read_study_log(tmp_path / "study.jsonl", study.commit())
    space = parse_space(search)
    for one, record in zip(log.outcomes, study.records(), strict=True):
        assert one.values(space) == record.values
        assert type(next(iter(one.values(space).values()))) is type(next(iter(record.values.values())))
        assert (one.number, one.status, one.objective, one.steps, one.reason) == (
            record.number, record.status, record.objective, record.steps, record.reason,
        )  # fmt: skip
    assert [one.number for one in log.best()] == study.best(study.records())


values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, float("nan"), float("inf")])


@given(st.lists(st.tuples(values, values, values), max_size=12))
def test_the_front_is_what_nobody_dominates(rows: list[tuple[float, ...]]) -> None:
    scores = dict(enumerate(rows))
    found = best_first(scores, ["maximize", "minimize", "maximize"])
    gains = {n: (a, -b, c) for n, (a, b, c) in scores.items() if np.isfinite([a, b, c]).all()}
    beaten = {
        one
        for one, other in itertools.permutations(gains, 2)
        if gains[one] != gains[other] and all(x <= y for x, y in zip(gains[one], gains[other], strict=True))
    }
    assert set(found) == set(gains) - beaten
    assert found == sorted(found, key=lambda n: ([-gain for gain in gains[n]], n))


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    how = settings(objectives=("train/score", "train/cost"), directions=("maximize", "minimize"))
    study = open_study(tmp_path / "two", how)
    for number, objective in enumerate([[1.0, 5.0], [2.0, 9.0], [0.5, 6.0]]):
        study.ask()
        study.end(number, "finished", objective, steps=10)
    config = {"study": {"objective": ["train/score", "train/cost"], "direction": ["maximize", "minimize"]}}
    commit(tmp_path / "two", study, config=config)
    found = read_overview(tmp_path / "two", tmp_path)
    assert [one.number for one in found.best] == [1, 0]
    assert found.objectives == ("train/score", "train/cost")
    assert found.directions == ("maximize", "minimize")


def test_the_default_objective_is_named() -> None:
    sets = {"train": {}, "other": {}}
    assert objectives_of({}) == ("train/score",)
    assert objectives_of({"evaluation": {"sets": sets}}) == ("evaluation/train/return",)
    assert objectives_of({"evaluation": {"sets": sets, "select": "other"}}) == ("evaluation/other/return",)
    assert objectives_of({"study": {"objective": "train/loss"}}) == ("train/loss",)


def test_folders_by_name(tmp_path: Path) -> None:
    half_way(tmp_path)
    study = open_study(tmp_path / "toy" / "single-0123", settings("grid", None), {})
    commit(tmp_path / "toy" / "single-0123", study, search={})
    (tmp_path / "artifacts").mkdir()
    names = [str(folder.relative_to(tmp_path)) for folder in sweep_folders(tmp_path)]
    assert names == ["toy", "toy/single-0123"]
    assert sweep_folder(tmp_path, "toy/single-0123").is_dir()
    with pytest.raises(MetalabError, match=r"no sweep named 'toi' in .*did you mean 'toy'\?"):
        sweep_folder(tmp_path, "toi")
    for name in ("../toy", "toy/", ""):
        with pytest.raises(MetalabError, match="name: got "):
            sweep_folder(tmp_path, name)


def test_a_folder_that_was_meddled_with(tmp_path: Path) -> None:
    folder = half_way(tmp_path)
    (folder / "sweep.yaml").write_text("search: {outer.rate: 'choice(1, 2)'}")
    with pytest.raises(MetalabError, match=r"sweep\.yaml: its search is not that of the sweep"):
        read_overview(folder, tmp_path)
    lines = (folder / "study.jsonl").read_text().splitlines(keepends=True)
    (folder / "study.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(MetalabError, match=rf"holds {len(lines) - 1} logs where {len(lines)} were committed"):
        read_overview(folder, tmp_path)
    (folder / "study.jsonl").write_text("".join([*lines[:3], "no log\n", *lines[4:]]))
    with pytest.raises(MetalabError, match=r"study\.jsonl, line 4: not a log"):
        read_overview(folder, tmp_path)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(MetalabError, match=r"sweep\.json: cannot be read"):
        read_overview(folder, tmp_path)


def test_asking_loads_nothing_heavy(tmp_path: Path) -> None:
    half_way(tmp_path)
    program = (
        "import sys\nfrom metalab.cli import main\n"
        "for more in ([], ['toy'], ['--json']):\n"
        f"    assert main(['status', *more, '--root', {str(tmp_path)!r}]) == 0\n"
        "print('heavy:', [name for name in ('jax', 'mlflow', 'optuna', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_an_engine_is_watched_while_it_runs(root: Path) -> None:
    seen: list[Overview] = []

    def look(chunks: int) -> None:
        seen.append(read_overview(root / "toy", root))

    search = {"outer.rate": "choice(0.1, 0.2, 0.3)"}
    spec = toy.make_spec(search=search, outer_steps=6, chunk=2)
    spec = dataclasses.replace(spec, config={**spec.config, "search": search})  # as that of a file
    toy.run(spec, root, on_chunk=look, checkpoint_seconds=0.0, max_lanes=2)
    assert {one.state for one in seen} == {"running"}
    assert [sum(one.counts.values()) for one in seen] == [3] * len(seen)
    ended = [one.points - one.counts["running"] - one.counts["waiting"] for one in seen]
    assert ended == sorted(ended)
    assert max(one.counts["running"] for one in seen) == 2
    last = read_overview(root / "toy", root)
    assert (last.state, last.counts["finished"], last.records_waiting) == ("ended", 3, 0)
    assert json.dumps(last.counts)
