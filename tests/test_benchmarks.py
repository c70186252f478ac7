"""Benchmarks do the work that they say they time; how long it takes is nobody's business here."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml

from benchmarks import by_engine, by_hand, packing, ppo, stopwatch
from benchmarks.__main__ import BENCHMARKS
from benchmarks.agents import AGENTS, Case
from benchmarks.instructions import LoopBody, loop_body
from benchmarks.processes import WAYS, Measured
from benchmarks.stopwatch import Stopwatch
from benchmarks.tables import spread, table
from metalab import devices
from metalab.config import load, make_point
from metalab.sweep.space import parse_space

ROOT = Path(__file__).parents[1]
SMALLEST = Case(agent="table", points=2, outer_steps=4, updates=20, chunk=2)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_sweep_file_holds_the_agents_put_together_by_hand(agent: str, tmp_path: Path) -> None:
    case = Case(agent=agent, points=3)
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(case.sweep_file()))
    spec = load(file)
    points = [make_point(spec, n, values).outer for n, values in enumerate(parse_space(spec.search))]
    by_rate = [case.outer_loop(rate) for rate in case.rates]
    assert len(set(case.rates)) == 3
    assert [jax.tree.leaves(one) for one in points] == [jax.tree.leaves(one) for one in by_rate]
    assert [jax.tree.structure(one) for one in points] == [jax.tree.structure(one) for one in by_rate]


@pytest.mark.slow
def test_a_pack_and_a_function_called_in_turn_train_the_same_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "configure", lambda: None)  # the tests have configured theirs
    one_by_one, packed = by_hand.loop(SMALLEST), by_engine.pack(SMALLEST)
    assert len(packed.scores) == 2
    assert max(map(abs, packed.scores)) > 0.0
    # Last bits differ with the width of a program; so short a training does not make more of them.
    assert packed.scores == pytest.approx(one_by_one.scores, rel=1e-3)


def test_the_table_of_packing_multiplies_processes_and_compares_with_the_pack() -> None:
    def measured(whole: float, run: float, run_cpu: float | None = 3.0) -> Measured:
        return Measured(1.0, 0.5, 2.0, run, 0.25, whole, run_cpu, 2 * whole, [1.0, 3.0])

    found = {way: [measured(12.0, 4.0)] for way in WAYS}
    found["alone"] = [measured(6.0, 0.5)]
    found["pack"] = [measured(8.0, 2.0), measured(11.0, 4.0), measured(10.0, 1.0)]  # medians: 10 and 2
    found["sweep"] = [measured(15.0, 3.0, None)]
    rows = _rows(packing.report(SMALLEST, found), "way")
    assert len(rows) == 6
    # way, start, trace, compile, run, rest, whole, CPU-s, CPU-s of run, whole / pack's, run / pack's, score
    assert rows[0] == [
        "2 fresh processes, one after another",
        *("2.0", "1.0", "4.0", "1.0", "0.5", "12.0", "24.0", "6.0", "1.20", "0.50"),
    ]
    assert rows[3][0] == "2 worker processes, a jitted function each"
    assert rows[3][-3:] == ["1.20", "2.00", "2"]
    assert rows[4][0] == "one pack"
    assert rows[4][-6:] == ["10.0 (8.0-11.0)", "20.0", "3.0", "1.00", "1.00", "2"]
    assert rows[5][-4:] == ["30.0", "1.50", "1.50", "2"]


def test_a_stopwatch_gives_a_section_its_own_time_and_puts_methods_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Worker:
        def outer(self) -> int:
            return self.inner() + self.inner()

        def inner(self) -> int:
            return 1

    original = Worker.__dict__["inner"]
    ticks = itertools.count()  # every look at the clock is one second later
    monkeypatch.setattr(stopwatch, "clock", lambda: (float(tick := next(ticks)), 2.0 * tick))
    watch = Stopwatch({"all": (Worker, "outer"), "part": (Worker, "inner")}, waited=("part",))
    with watch.watching():
        assert Worker().outer() == 2
    # outer from 0 to 5, inner from 1 to 2 and from 3 to 4
    assert watch.seconds == {"all": 3.0, "part": 2.0}
    assert watch.cpu == {"all": 6.0, "part": 4.0}
    assert watch.calls == {"all": 1, "part": 2}
    assert Worker.__dict__["inner"] is original


def test_columns_are_aligned_and_medians_have_their_extremes() -> None:
    text = table(["what", "s"], [["one", "1.0"], ["another", "10.0"]])
    assert text.splitlines() == ["what        s", "one       1.0", "another  10.0"]
    assert spread([1.0, 3.0, 2.0]) == "2.0 (1.0-3.0)"
    assert spread([0.25], digits=2) == "0.25"


PROGRAM = """
%inner (x: (s32[])) -> (s32[]) {
  %x = (s32[]) parameter(0)
  ROOT %more.1 = (s32[]) custom-call(%x)
}

%called (y: f32[]) -> f32[] {
  %y = f32[] parameter(0)
  %draw = (s32[]) while(%y), condition=%low, body=%inner
  ROOT %twice = f32[] add(%y, %y)
}

%step (z: (s32[], f32[])) -> (s32[], f32[]) {
  %z = (s32[], f32[]) parameter(0)
  %f = f32[] get-tuple-element(%z), index=1
  %g = f32[4]{0} fusion(%f), kind=kLoop, calls=%fused
  %h = f32[] call(%f), to_apply=%called
  ROOT %t = (s32[], f32[]) tuple(%g, %h)
}

ENTRY %main (a: f32[]) -> f32[] {
  %w = (s32[], f32[]) while(%a), condition=%c, body=%step, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_a_loops_body_is_its_instructions_and_the_loops_inside() -> None:
    """A fusion, and the addition of the computation that is called; the loop in there draws numbers."""
    assert loop_body(PROGRAM, 7) == LoopBody(instructions=2, loops=1)
    with pytest.raises(ValueError, match="no loop of 8 passes"):
        loop_body(PROGRAM, 8)


@pytest.mark.slow
def test_a_step_of_a_rollout_is_few_instructions() -> None:
    """Every instruction of the body is paid for at each step; a pool leaves no random number to draw."""
    assert ppo.rollout_step({}).instructions <= 70
    pooled = ppo.rollout_step({"reset_pool": 16})
    assert pooled.instructions <= 45 and pooled.loops == 0


@pytest.mark.slow
def test_ppo_is_measured_beside_its_ablations_and_bare_worlds() -> None:
    said = _command("ppo", "--no-peer", "--seeds", "2", "--updates", "25", "--repeats", "1")
    assert [row[0] for row in _rows(said, "seeds")] == ["2"]
    assert len(_rows(said, "PPO of 2 seeds")) == len(ppo.ABLATIONS)
    assert len(_rows(said, "CartPole-v1 alone")) == 6


@pytest.mark.slow
def test_packing_measures_every_way() -> None:
    sizes = ("--points", "2", "--outer-steps", "2", "--updates", "2", "--chunk", "1", "--repeats", "1")
    said = _command("packing", "--agent", "table", *sizes)
    rows = _rows(said, "way")
    assert [row[0].partition(" ")[0] for row in rows] == ["2", "one", "one", "2", "one", "the"]
    assert all(len(row) >= 10 for row in rows)
    assert "load average" in said


@pytest.mark.slow
def test_overhead_says_where_a_sweeps_time_goes() -> None:
    said = _command("overhead", "--smoke", "--repeats", "2")
    assert [row[0] for row in _rows(said, "run")] == ["1", "2"]
    calls = {row[0]: row[-1] for row in _rows(said, "where a sweep's time goes")}
    assert calls["devices compute"] == "1"  # two outer steps in one chunk
    assert "as chunks in a row without the engine" in calls
    assert int(calls["rest of a commit"]) >= 2
    assert "load average" in said


@pytest.mark.slow
def test_distillation_measures_recording_teaching_and_living() -> None:
    sizes = ("--contexts", "4", "--lives", "2", "--sources", "2", "--batch", "2", "--window", "4")
    rows = _rows(_command("distillation", *sizes, "--repeats", "1"), "what")
    named = ["recording", "teaching", "teaching, streams mapped over", "living, context 4"]
    assert [row[0] for row in rows] == [*named, "living, context 4, read anew"]
    assert all(len(row) == 7 for row in rows)


@pytest.mark.slow
def test_every_benchmark_is_a_command() -> None:
    for name in BENCHMARKS:
        assert "--repeats" in _command(name, "--help")


def _command(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header begins with a word, its empty cells left out."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(header)) + 1
    rows = itertools.takewhile(lambda line: "  " in line and not line.startswith("date"), lines[first:])
    return [re.split(r"\s{2,}", row.strip()) for row in rows]
