"""Recordings: what a source lived comes to disk, whatever interrupts it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from inner_loops.environments.rooms import next_cells
from metalab.cli import main
from metalab.components import as_arrays
from metalab.config import load
from metalab.errors import ConfigError, MetalabError
from metalab.histories import Histories, part_path, read_histories, read_manifest
from metalab.lifetimes import unroll
from metalab.sweep import recording
from metalab.sweep.recording import record_all

FILE = """
name: toy
tasks: {kind: dark_rooms, size: 3, horizon: 4, held_out: 3}
inner: {kind: actor_critic, network: {kind: tabular}, num_envs: 2}
outer: {kind: fixed, num_slots: 1, truncation: 1}
budget: {outer_steps: 1, chunk: 1}
record:
  source:
    inner: {kind: q_learning, num_envs: 2, rollout_length: 6, initial_spread: 0.5}
    seeds: 2
    updates: 3
smoke: {record: {source: {seeds: 1}}}
"""
STEPS = 18


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "toy.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Any:
    """Twelve histories of 18 steps in three parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "_BATCH_STEPS", 4 * STEPS)
        yield


@pytest.fixture(scope="module")
def recorded(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_all(load(file), tmp_path_factory.mktemp("runs"), progress=False)[0]


def assert_same(first: Histories, second: Histories) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_every_task_is_lived_on_by_every_seed(recorded: Path) -> None:
    histories, manifest = read_histories(recorded), read_manifest(recorded)
    assert (manifest.parts, manifest.histories, manifest.steps, manifest.horizon) == (3, 12, STEPS, 4)
    assert (manifest.num_states, manifest.num_actions, manifest.split) == (9, 5, "train")
    np.testing.assert_array_equal(histories.task, np.repeat(np.arange(6), 2))
    np.testing.assert_array_equal(histories.seed, np.tile([0, 1], 6))
    assert len(np.unique(histories.action, axis=0)) == 12  # no two lives are alike
    assert (histories.obs.dtype, histories.action.dtype, histories.reward.dtype) == (np.int8,) * 3


def test_a_history_is_one_stream_of_transitions(recorded: Path, file: Path) -> None:
    """Episodes of four steps from the centre, each cell where the last action led, paid at the goal alone."""
    histories = read_histories(recorded)
    np.testing.assert_array_equal(histories.start, np.tile(np.arange(STEPS) % 4 == 0, (12, 1)))
    assert np.all(histories.obs[histories.start] == 4)
    reached = next_cells(3)[histories.obs, histories.action]
    inside = ~histories.start[:, 1:]
    np.testing.assert_array_equal(histories.obs[:, 1:][inside], reached[:, :-1][inside])
    goals = load(file).recordings[0].tasks.goals[histories.task]  # pyright: ignore
    np.testing.assert_array_equal(histories.reward, reached == goals[:, None])


def test_a_history_is_the_life_that_a_learner_leads_alone(recorded: Path, file: Path) -> None:
    source = load(file).recordings[0]
    inner: Any = as_arrays(source.inner)
    tasks = source.tasks.sample_set(jax.random.key(0), 6)  # pyright: ignore[reportAttributeAccessIssue]
    task = jax.tree.map(lambda leaf: leaf[3], tasks)

    def life(key: Any) -> Any:
        birth_key, live_key = jax.random.split(key)
        return unroll(inner, live_key, (), inner.init(birth_key, (), task), 3)[1].record

    record = jax.jit(life)(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 1))
    histories = read_histories(recorded)
    np.testing.assert_array_equal(histories.action[7], record.action[:, :, 0].reshape(-1))
    np.testing.assert_array_equal(histories.obs[7], record.obs[:, :-1, 0].reshape(-1))


def test_an_interrupted_recording_goes_on_to_the_same_histories(
    file: Path, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path, number: int, histories: Histories) -> None:
        if number == 1:  # what a kill leaves behind: half of a draft
            part_path(folder, number).with_name("part-00001.parquet.new").write_bytes(b"PAR1 half")
            raise KeyboardInterrupt
        write(folder, number, histories)

    write = recording.write_part
    monkeypatch.setattr(recording, "write_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        record_all(load(file), tmp_path, progress=False)
    with pytest.raises(MetalabError, match="1 of 3 parts are recorded"):
        read_histories(tmp_path / "histories" / "toy" / "source")
    monkeypatch.setattr(recording, "write_part", write)
    first = part_path(tmp_path / "histories" / "toy" / "source", 0)
    stamp = first.stat().st_mtime_ns
    (folder,) = record_all(load(file), tmp_path, progress=False)
    assert_same(read_histories(folder), read_histories(recorded))
    assert first.stat().st_mtime_ns == stamp
    assert part_path(folder, 1).read_bytes() == part_path(recorded, 1).read_bytes()


def test_other_settings_are_refused_and_fresh_records_anew(file: Path, recorded: Path) -> None:
    root = recorded.parents[2]
    changed = load(file, ["record.source.inner.discount=0.5"])
    with pytest.raises(
        MetalabError, match=r"recorded with inner.discount = 0.99, the file says 0.5: give .* --fresh"
    ):
        record_all(changed, root, progress=False)
    before = read_histories(recorded)
    record_all(load(file), root, progress=False, fresh=True)
    assert_same(read_histories(recorded), before)


def test_components_name_a_recording_of_their_file(file: Path, tmp_path: Path) -> None:
    text = FILE.replace(
        "outer: {kind: fixed,", "outer: {kind: 'tests.sweep.recording_toys:Reader', path: source,"
    )
    (tmp_path / "named.yaml").write_text(text + "search: {outer.path: 'choice(source, other/one)'}\n")
    spec = load(tmp_path / "named.yaml")
    assert spec.config["outer"]["path"] == "toy/source"
    from metalab.config import PointMaker

    make = PointMaker(spec)
    assert [make(0, {"outer.path": path}).outer.path for path in ("source", "other/one")] == [  # pyright: ignore
        "toy/source",
        "other/one",
    ]
    baseline = "baselines: {one: {inner: {kind: 'tests.sweep.recording_toys:Named', path: source}}}\n"
    sets = "evaluation: {sets: {train: {count: 1, updates: 1}}}\n"
    (tmp_path / "told.yaml").write_text(text + baseline + sets)
    assert load(tmp_path / "told.yaml").baselines[0].config["inner"]["path"] == "toy/source"
    assert load(tmp_path / "named.yaml", smoke=True).config["outer"]["path"] == "toy-smoke/source"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["record.source.updates=0"], r"record.source.updates: 0 is out of range: it must be at least 1"),
        (["+record.source.update=1"], r"record.source.update: unknown key .*did you mean 'updates'"),
        (["record.source.inner=null"], r"record.source.inner: required and not given: the source learner"),
        (
            ["+record.source.tasks={kind: bernoulli_bandits}"],
            r"record.source.count: required .*bernoulli_bandits",
        ),
        (["record.source.inner.discount=2"], r"record.source.inner.discount: "),
        (["+record.a/b={}"], r"a/b"),
    ],
)
def test_a_mistake_in_the_section_is_told_by_its_place(file: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(file, overrides)


def test_what_cannot_be_recorded_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"record: there is no 'sauce'; did you mean 'source'"):
        record_all(load(file), tmp_path, ["sauce"], progress=False)
    continuous = ["+record.source.tasks={kind: point_goals}", "+record.source.count=1"]
    spec = load(file, [*continuous, "record.source.inner={kind: d4pg, num_envs: 1, rollout_length: 2}"])
    with pytest.raises(MetalabError, match=r"record.source.inner: D4PG reports no transitions"):
        record_all(spec, tmp_path, progress=False)
    with pytest.raises(MetalabError, match=r"record.source.meta: QLearning has no meta-parameters"):
        record_all(load(file, ["+record.source.meta=abc"]), tmp_path, progress=False)


@pytest.mark.parametrize(
    "inner",
    [
        "{kind: actor_critic, network: {kind: tabular}, num_envs: 2}",
        "{kind: ppo, network: {kind: tabular}, num_envs: 2, rollout_length: 4}",
        "{kind: recurrent_ppo, num_envs: 2, rollout_length: 4, minibatches: 1}",
        "{kind: dqn, num_envs: 2, capacity: 64, warmup: 8, batch_size: 4}",
        "{kind: noised_expert}",
        "{kind: in_context, agent: {kind: ucb1}}",
        "{kind: in_context, agent: {kind: thompson}}",
        "{kind: in_context, agent: {kind: symla, hidden_size: 2}}",
    ],
)
def test_every_learner_with_discrete_actions_can_be_a_source(file: Path, inner: str) -> None:
    coordinates = ["+record.source.tasks={observation: coordinates}"] if "dqn" in inner else []
    spec = load(file, [f"record.source.inner={inner}", *coordinates])
    manifest = recording._manifest(spec.recordings[0])
    assert manifest.observation_shape == ((2,) if coordinates else ())
    assert (manifest.num_actions, manifest.steps % 3) == (5, 0)


def test_the_commands_record_and_tell(
    file: Path, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path)]
    assert main(["record", str(file), "source", "--smoke", *root]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "histories" / "toy-smoke" / "source")
    assert "record source: 6 histories of 18 steps" in shown.err and "2/2 parts" in shown.err
    assert main(["histories", *root]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["recording", "source", "split"]
    assert table[1].split()[:6] == ["toy-smoke/source", "q_learning", "train", "6", "6", "18"]
    assert main(["histories", "source", *root]) == 0
    assert "rollout_length: 6" in capsys.readouterr().out
    assert main(["histories", str(recorded), *root]) == 0
    assert "toy/source" in capsys.readouterr().out
    assert main(["histories", "sauce", *root]) == 2
    assert "there is no recording 'sauce'" in capsys.readouterr().err


def test_the_part_of_tasks_in_wrappers_is_known(file: Path, tmp_path: Path) -> None:
    """Rooms whose actions are permuted for each life are of the part that the rooms are of."""
    rooms = "{kind: dark_rooms, size: 3, horizon: 4, held_out: 3, part: held_out}"
    wrapped = f"{{kind: wrapped_tasks, tasks: {rooms}, wrappers: [{{kind: action_permutation}}]}}"
    spec = load(file, [f"tasks={wrapped}", "record.source.count=4"])
    assert read_manifest(record_all(spec, tmp_path, progress=False)[0]).split == "held_out"


def test_a_plan_tells_what_is_still_to_be_recorded(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, while and after; with a student, whose program cannot be traced before."""
    student = [
        "inner={kind: distillation, histories: {kind: recorded, path: source}, window: 8, batch_size: 2, "
        "agent: {kind: transformer, width: 8, layers: 1, heads: 2, context: 8}}",
        "outer={kind: meta_gradient, truncation: 0, num_slots: 1}",
    ]
    told = ["plan", str(file), "--root", str(tmp_path), *student]
    assert main(told) == 0
    out = capsys.readouterr().out
    assert "toy: 1 point, 1 seed, 1 program" in out
    assert "recording source: 12 histories of 18 steps, 3 of 3 parts to be recorded" in out
    assert f"what the programs need can be told after `metalab record {file}`" in out
    assert not list(tmp_path.iterdir())

    folder = record_all(load(file), tmp_path, progress=False)[0]
    part_path(folder, 1).unlink()
    assert main(told) == 0
    assert "1 of 3 parts to be recorded" in capsys.readouterr().out

    record_all(load(file), tmp_path, progress=False)
    assert main(told) == 0
    out = capsys.readouterr().out
    assert "recording source: 12 histories of 18 steps, there" in out
    assert "program 0: 1 point, 1 at once x 1 seed" in out


@pytest.mark.slow
def test_a_source_may_have_learned_meta_parameters(tmp_path: Path) -> None:
    """LPG agents with the rule of a finished run live other lives than with a fresh rule."""
    text = FILE.replace(
        "kind: q_learning, num_envs: 2, rollout_length: 6, initial_spread: 0.5", _LPG
    ).replace("{kind: actor_critic, network: {kind: tabular}, num_envs: 2}", f"{{{_LPG}}}")
    file = tmp_path / "toy.yaml"
    file.write_text(text)
    assert main(["run", str(file), "--root", str(tmp_path), *_META_GRADIENT]) == 0
    from metalab.tracking import client_of

    store = client_of(tmp_path)
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    run = store.search_runs(experiments, "tags.`metalab.kind` = 'point'")[0].info.run_id
    fresh = tmp_path / "histories" / "toy" / "source"
    with_run = load(file, [f"+record.source.meta={run}", "+record.source.path=toy/learned"])
    (learned,) = record_all(with_run, tmp_path, progress=False)
    assert np.any(read_histories(learned).action != read_histories(fresh).action)
    other = load(
        file, [f"+record.source.meta={run}", "+record.source.meta_seed=1", "+record.source.path=a/b"]
    )
    with pytest.raises(MetalabError, match=r"record.source.meta_seed: got 1; run .* has the seeds 0 to 0"):
        record_all(other, tmp_path, progress=False)


_LPG = "kind: actor_critic, rule: {kind: lpg, hidden_size: 4}, network: {kind: tabular}, num_envs: 2"
_META_GRADIENT = ["outer={kind: meta_gradient, num_slots: 2, truncation: 2}"]
_KILLED = """
import sys
from pathlib import Path
from metalab.config import load
from metalab.sweep import recording
recording._BATCH_STEPS = 20 * 18
recording.record_all(load(sys.argv[1], ["record.source.seeds=400"]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_recording_goes_on_to_the_same_histories(file: Path, tmp_path: Path) -> None:
    """SIGKILL once some of 120 parts are there; the same command then makes what an unharmed one makes."""

    def start(root: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _KILLED, str(file), str(tmp_path / root)])

    folder = tmp_path / "killed" / "histories" / "toy" / "source"
    process = start("killed")
    deadline = time.monotonic() + 120
    while len(list(folder.glob("part-*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(folder.glob("part-*.parquet"))) < 120
    assert start("killed").wait() == 0 and start("whole").wait() == 0
    whole = tmp_path / "whole" / "histories" / "toy" / "source"
    assert_same(read_histories(folder), read_histories(whole))
