"""Lanes: berths are refilled in place, neighbours notice nothing, empty ones are left behind if it pays."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from metalab.spec import Pruner
from metalab.sweep.shrink import pays, step_cost
from tests.sweep import toy
from tests.sweep.toy import elsewhere, run, runs_of, table


def statuses(root: Path) -> list[str]:
    return [one.data.tags["metalab.status"] for one in runs_of(root)]


def test_more_points_than_berths_share_one_program(root: Path) -> None:
    search = {"outer.rate": "range(0.01, 0.13, 0.01)"}
    result = run(toy.make_spec(search=search, seeds=2), root, max_lanes=3)
    assert result.finished == 12
    assert result.compilations["chunk"] == result.compilations["init"] == 1
    assert result.tallies["device_steps"] == result.tallies["needed_steps"] == 12 * 2 * 6


@pytest.mark.slow
def test_seeds_may_begin_anywhere(root: Path) -> None:
    """Four seeds from 0 on, and two from 2 on: the latter are the former's last two, judged alike."""
    spec = toy.make_spec(search={"outer.rate": "choice(0.1)"}, seeds=4, base={"inner.noise": 0.1})
    other = elsewhere(root, "other")
    run(spec, root)
    run(dataclasses.replace(spec, seeds=2, first_seed=2), other)
    ((four,), (two,)) = runs_of(root), runs_of(other)
    for name in ("series.parquet", "evaluation.parquet"):
        every, late = table(root, four, name), table(other, two, name)
        values = every[every["seed"] >= 2].reset_index(drop=True)["value"]
        np.testing.assert_allclose(late["value"], values, rtol=1e-5)
        assert not np.allclose(late["value"], every[every["seed"] < 2]["value"], rtol=1e-5)


def test_a_refilled_berth_gives_what_a_fresh_pack_gives(root: Path) -> None:
    search = {"outer.rate": "choice(0.02, 0.05, 0.1, 0.2)"}
    spec = toy.make_spec(search=search, seeds=2, base={"inner.noise": 0.1})
    other = elsewhere(root, "other")
    run(spec, root, max_lanes=2)
    late = {"outer.rate": "choice(0.1, 0.2)"}
    run(toy.make_spec(search=late, seeds=2, base={"inner.noise": 0.1}), other, max_lanes=2)
    for reborn, first in zip(runs_of(root)[2:], runs_of(other), strict=True):
        for name in ("series.parquet", "evaluation.parquet"):
            pd.testing.assert_frame_equal(table(root, reborn, name), table(other, first, name))


@pytest.mark.slow
def test_pruned_points_give_their_berths_to_others(root: Path) -> None:
    """At least 8 times more points than lanes; what the devices computed is what the points needed."""
    # Good rates first: what comes later is worse than the median at the first evaluation already.
    rates = ", ".join(str(round(0.2 - 0.001 * i, 4)) for i in range(160))
    spec = toy.make_spec(
        search={"outer.rate": f"choice({rates})"},
        seeds=1,
        outer_steps=16,
        chunk=1,
        every=1,
        pruner=Pruner(kind="median", startup_points=4),
    )
    result = run(spec, root, max_lanes=4, shrink="never")
    assert result.compilations["chunk"] == 1
    ended = statuses(root)
    assert ended.count("PRUNED") > 100
    steps = {"PRUNED": [], "FINISHED": []}
    for one in runs_of(root):
        series = table(root, one, "series.parquet")
        steps[one.data.tags["metalab.status"]].append(int(series.step.max()))
    needed = sum(steps["PRUNED"]) + sum(steps["FINISHED"])
    assert set(steps["FINISHED"]) == {16}
    assert result.tallies["needed_steps"] == needed
    assert needed <= result.tallies["device_steps"] <= 1.1 * needed
    best = max(one.data.metrics["objective"] for one in runs_of(root))
    assert any(
        one.data.metrics["objective"] == best
        for one in runs_of(root)
        if one.data.tags["metalab.status"] == "FINISHED"
    )


@pytest.mark.parametrize("kind", ["successive_halving", "hyperband", "wilcoxon"])
def test_every_pruner_stops_bad_points(root: Path, kind: str) -> None:
    spec = toy.make_spec(
        search={"inner.start": "choice(0.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0)"},
        seeds=5,
        outer_steps=12,
        chunk=1,
        every=1,
        pruner=Pruner(kind=kind, startup_points=1),
    )
    result = run(spec, root, max_lanes=2)
    ended = statuses(root)
    assert ended[0] == "FINISHED"
    assert "PRUNED" in ended
    assert result.failed == 0
    (pruned, *_) = [one for one in runs_of(root) if one.data.tags["metalab.status"] == "PRUNED"]
    assert kind in pruned.data.tags["metalab.error"]
    assert "objective" in pruned.data.metrics
    assert "final/train/return" not in pruned.data.metrics


def test_a_diverged_point_leaves_its_neighbours_as_they_are_to_the_last_bit(root: Path) -> None:
    whole = elsewhere(root, "whole")
    run(
        toy.make_spec(search={"outer.break_at": "choice(-1, -2, -3, -4)"}, base={"inner.noise": 0.1}),
        whole,
        max_lanes=2,
    )
    result = run(
        toy.make_spec(search={"outer.break_at": "choice(-1, 3, -3, -4)"}, base={"inner.noise": 0.1}),
        root,
        max_lanes=2,
    )
    assert (result.finished, result.failed) == (3, 1)
    assert [(one.who, one.status, one.step) for one in result.endings] == [("point 1", "diverged", 4)]
    assert "step 4" in result.endings[0].reason
    broken = runs_of(root)[1]
    assert broken.info.status == "FAILED"
    assert broken.data.tags["metalab.diverged"] == '{"0": 4, "1": 4}'  # steps count from 1
    for at in (0, 2, 3):
        ours, theirs = runs_of(root)[at], runs_of(whole)[at]
        for name in ("series.parquet", "evaluation.parquet"):
            pd.testing.assert_frame_equal(table(root, ours, name), table(whole, theirs, name))


def test_one_seed_that_diverges_is_stopped_and_counts_as_the_worst(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.Descent.init

    def init(self: Any, key: Any) -> Any:
        state = original(self, key)
        unlucky = toy.jax.random.key_data(key)[-1] % 2 == 0  # a property of the seed alone
        return state._replace(steps=toy.jnp.where(unlucky, state.steps, -1000))

    monkeypatch.setattr(toy.Descent, "init", init)
    spec = toy.make_spec(search={"outer.break_at": "choice(3)"}, seeds=6, over_seeds="median")
    result = run(spec, root)
    (one,) = runs_of(root)
    series = table(root, one, "series.parquet")
    loss = series[series.metric == "train/loss"].pivot(index="step", columns="seed", values="value")
    broken = [seed for seed in loss if not np.isfinite(loss[seed]).all()]
    assert 0 < len(broken) < 6
    assert result.failed == 0
    for seed in range(6):
        expected = [1, 2, 3] if seed in broken else [1, 2, 3, 4, 5, 6]
        assert loss.index[np.isfinite(loss[seed])].tolist() == expected
    assert np.isfinite(one.data.metrics["objective"]) == (len(broken) < 3)
    stored = [value for value in one.data.metrics.values() if not np.isnan(value)]
    assert max(abs(value) for value in stored) < 1e6  # no infinity stored as 1.8e308


def test_empty_berths_are_left_behind(root: Path) -> None:
    search = {"outer.rate": "range(0.01, 0.06, 0.01)"}
    spec = toy.make_spec(search=search, seeds=1)
    wide = elsewhere(root, "wide")
    stayed = run(spec, wide, max_lanes=4, shrink="never")
    result = run(spec, root, max_lanes=4, shrink="always")
    assert stayed.tallies["shrinks"] == 0
    assert result.tallies["shrinks"] == 1
    assert result.compilations["chunk"] == 2
    assert result.tallies["device_steps"] < stayed.tallies["device_steps"]
    for ours, theirs in zip(runs_of(root), runs_of(wide), strict=True):
        a, b = table(root, ours, "series.parquet"), table(wide, theirs, "series.parquet")
        np.testing.assert_allclose(a.value, b.value, rtol=1e-4)


def test_whether_shrinking_pays_is_a_matter_of_the_program_alone() -> None:
    outer = toy.Descent(inner=toy.Parabola(), tasks=toy.Targets())
    operations, equations = step_cost(outer)
    longer = step_cost(toy.Descent(inner=toy.Parabola(), tasks=toy.Targets(), length=8))
    assert longer[0] > 1.5 * operations  # twice the inner updates
    assert longer[1] == equations  # and the same program to compile
    assert not pays((operations, equations), lanes_left_out=4, steps_left=10, mesh_size=2, platform="cpu")
    assert pays((operations, equations), lanes_left_out=4, steps_left=10**9, mesh_size=2, platform="cpu")


@pytest.mark.slow
def test_programs_are_compiled_ahead_with_the_same_results(root: Path) -> None:
    spec = toy.make_spec(search={"outer.length": "choice(2, 4)"}, seeds=2, outer_steps=8)
    other = elsewhere(root, "other")
    ahead, later = run(spec, root, overlap=True), run(spec, other, overlap=False)
    assert ahead.compilations["chunk"] == later.compilations["chunk"] == 2
    for ours, theirs in zip(runs_of(root), runs_of(other), strict=True):
        pd.testing.assert_frame_equal(
            table(root, ours, "series.parquet"), table(other, theirs, "series.parquet")
        )


@pytest.mark.slow
def test_a_thousand_points_leave_the_hosts_memory_as_it_is(root: Path) -> None:
    resident: list[float] = []

    def on_chunk(_: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    search = {"outer.rate": "range(0.0001, 0.10005, 0.0001)"}
    result = run(toy.make_spec(search=search, seeds=2), root, on_chunk=on_chunk)
    assert result.finished == len(runs_of(root)) == 1000
    assert result.compilations["chunk"] == 1
    # MiB; the first tenth fills caches. One point's series and records are about 40 KiB.
    assert resident[-1] - resident[len(resident) // 10] < 60.0
