"""The form of recorded histories: what is written comes back, whole or thinned, and damage is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalab.errors import MetalabError
from metalab.histories import (
    FOLDER_VARIABLE,
    MANIFEST,
    Histories,
    Manifest,
    located,
    missing_parts,
    part_path,
    part_rows,
    read_histories,
    read_manifest,
    returns_of,
    tenths,
    write_manifest,
    write_part,
)

MANIFEST_OF = Manifest(
    name="toy",
    split="train",
    settings={"updates": 5},
    histories=3,
    batch=2,
    steps=10,
    observation_shape=(),
    num_actions=5,
    num_states=200,
    horizon=2,
    command="metalab record toy.yaml toy",
)


def toy(count: int = 3, steps: int = 10, episode: int = 2) -> Histories:
    """Histories whose observation is the number of the step, and whose reward is that of the episode."""
    numbers = np.arange(steps)
    return Histories(
        obs=np.tile(numbers, (count, 1)).astype(np.int8),
        action=np.tile(numbers % 5, (count, 1)).astype(np.int8),
        reward=np.tile(numbers // episode, (count, 1)).astype(np.int8),
        start=np.tile(numbers % episode == 0, (count, 1)),
        length=np.full(count, steps, np.int32),
        task=np.arange(count, dtype=np.int32),
        seed=np.zeros(count, np.int32),
    )


def recorded(folder: Path, histories: Histories, manifest: Manifest = MANIFEST_OF) -> Path:
    write_manifest(folder, manifest)
    for number in range(manifest.parts):
        rows = part_rows(manifest, number)
        write_part(folder, number, Histories._make(leaf[rows.start : rows.stop] for leaf in histories))
    return folder


def assert_same(first: Histories, second: Histories) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = recorded(tmp_path, toy())
    assert_same(read_histories(folder), toy())
    assert read_manifest(folder) == MANIFEST_OF
    assert read_histories(folder) is read_histories(str(folder))


def test_vectors_and_fractions_are_read(tmp_path: Path) -> None:
    obs = np.random.default_rng(0).normal(size=(3, 10, 2)).astype(np.float32)
    histories = toy()._replace(obs=obs, reward=obs[..., 0])
    manifest = dataclasses.replace(MANIFEST_OF, observation_shape=(2,), num_states=None)
    assert_same(read_histories(recorded(tmp_path, histories, manifest)), histories)


def test_parts_of_other_dtypes_are_joined(tmp_path: Path) -> None:
    folder = recorded(tmp_path, toy())
    last = Histories._make(leaf[2:] for leaf in toy())
    write_part(folder, 1, last._replace(obs=last.obs.astype(np.int16) + 190, reward=last.reward + 0.5))
    read = read_histories(folder)
    assert read.obs.dtype == np.int16 and read.obs[2, 9] == 199
    assert read.reward[0, 9] == 4.0 and read.reward[2, 9] == 4.5


def test_every_second_episode(tmp_path: Path) -> None:
    """Of the episodes 0 to 4 of two steps, 0, 2 and 4 stay: steps 0 1, 4 5, 8 9."""
    read = read_histories(recorded(tmp_path, toy()), every=2)
    np.testing.assert_array_equal(read.obs[0], [0, 1, 4, 5, 8, 9])
    np.testing.assert_array_equal(read.start[0], [True, False] * 3)
    np.testing.assert_array_equal(read.length, [6, 6, 6])


def test_a_share_is_taken_before_it_is_thinned(tmp_path: Path) -> None:
    """The last three fifths are the episodes 2, 3, 4, of which every second are 2 and 4."""
    read = read_histories(recorded(tmp_path, toy()), first=0.4, every=2)
    np.testing.assert_array_equal(read.obs[0], [4, 5, 8, 9])
    # A share that holds no whole episode still holds one.
    np.testing.assert_array_equal(read_histories(tmp_path, first=0.99).obs[0], [8, 9])
    np.testing.assert_array_equal(read_histories(tmp_path, last=0.01).obs[0], [0, 1])


def test_ragged_episodes_are_padded(tmp_path: Path) -> None:
    histories = toy()
    start = histories.start.copy()
    start[1] = np.arange(10) == 0  # one long episode
    start[1, 3] = True
    read = read_histories(recorded(tmp_path, histories._replace(start=start)), first=0.5)
    np.testing.assert_array_equal(read.length, [6, 7, 6])  # rint(2.5) = 2 of 5 are left out, 1 of 2
    np.testing.assert_array_equal(read.obs[1], [3, 4, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(read.obs[0], [4, 5, 6, 7, 8, 9, 0])
    np.testing.assert_array_equal(read.start[0, 6:], [False])


def test_histories_that_do_not_improve_are_dropped(tmp_path: Path) -> None:
    """Returns rise from 0 to 8 in the toy's episodes (2 steps of reward 4): an improvement of 8."""
    reward = toy().reward.copy()
    reward[1] = 1
    histories = toy()._replace(reward=reward)
    np.testing.assert_array_equal(tenths(histories), [[0.0, 2.0, 0.0], [8.0, 2.0, 8.0]])
    folder = recorded(tmp_path, histories)
    np.testing.assert_array_equal(read_histories(folder, min_improvement=8.0).task, [0, 2])
    with pytest.raises(MetalabError, match="none of 3 histories improves by 9"):
        read_histories(folder, min_improvement=9.0)


def test_returns_of_ragged_histories() -> None:
    histories = toy()._replace(length=np.asarray([10, 3, 1], np.int32))
    returns, count = returns_of(histories)
    np.testing.assert_array_equal(count, [5, 2, 1])
    np.testing.assert_array_equal(returns[:2], [[0, 2, 4, 6, 8], [0, 1, 0, 0, 0]])


def test_the_remainder_of_state_indices(tmp_path: Path) -> None:
    folder = recorded(tmp_path, toy())
    np.testing.assert_array_equal(read_histories(folder, modulo=4).obs[0, :6], [0, 1, 2, 3, 0, 1])


@given(
    starts=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=3, max_size=3),
    every=st.integers(1, 4),
    first=st.floats(0.0, 0.9),
)
def test_thinning_keeps_whole_episodes_in_order(
    tmp_path_factory: pytest.TempPathFactory, starts: list[list[bool]], every: int, first: float
) -> None:
    start = np.asarray(starts)
    start[:, 0] = True
    histories = toy(steps=12)._replace(start=start)
    manifest = dataclasses.replace(MANIFEST_OF, steps=12)
    read = read_histories(
        recorded(tmp_path_factory.mktemp("h"), histories, manifest), every=every, first=first
    )
    for row in range(3):
        episodes = np.split(np.arange(12), np.flatnonzero(start[row])[1:])
        low = min(int(np.rint(first * len(episodes))), len(episodes) - 1)
        wanted = np.concatenate(episodes[low::every])
        assert read.length[row] == len(wanted)
        np.testing.assert_array_equal(read.obs[row, : len(wanted)], wanted)


def test_another_recording_under_the_same_name_is_read(tmp_path: Path) -> None:
    first = read_histories(recorded(tmp_path, toy()))
    second = read_histories(recorded(tmp_path, toy()._replace(task=np.arange(3, 6, dtype=np.int32))))
    np.testing.assert_array_equal(second.task - first.task, [3, 3, 3])


def test_an_incomplete_recording_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = recorded(tmp_path, toy())
    part_path(folder, 1).unlink()
    part_path(folder, 1).with_name("part-00001.parquet.new").write_bytes(b"half")
    assert missing_parts(folder, MANIFEST_OF) == [1]
    with pytest.raises(MetalabError, match=r"1 of 2 parts are recorded; `metalab record toy.yaml toy`"):
        read_histories(folder)


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"no recording is there.*metalab record FILE"):
        read_histories(tmp_path / "nowhere")
    folder = recorded(tmp_path, toy())
    part_path(folder, 0).write_bytes(b"PAR1 nonsense")
    with pytest.raises(
        MetalabError, match=r"part-00000.parquet: is no part .* delete it, and `metalab"
    ) as told:
        read_histories(folder)
    assert "\n" not in str(told.value)
    write_part(folder, 0, Histories._make(leaf[:1] for leaf in toy()))
    with pytest.raises(MetalabError, match=r"holds 1 histories, manifest.json says 2"):
        read_histories(folder)


def test_another_schema_and_a_damaged_manifest_are_refused(tmp_path: Path) -> None:
    folder = recorded(tmp_path, toy())
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "schema": 7}))
    with pytest.raises(MetalabError, match=r"schema version 7, this metalab reads 1"):
        read_histories(folder)
    (folder / MANIFEST).write_text('{"schema"')
    with pytest.raises(MetalabError, match=r"is no manifest of a recording .* --fresh"):
        read_histories(folder)


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MetalabError, match=r"every: got 0"):
        read_histories(tmp_path, every=0)
    with pytest.raises(MetalabError, match=r"first=0.9, last=0.5"):
        read_histories(tmp_path, first=0.9, last=0.5)
    vectors = toy()._replace(obs=np.zeros((3, 10, 2), np.float32))
    folder = recorded(tmp_path, vectors, dataclasses.replace(MANIFEST_OF, observation_shape=(2,)))
    with pytest.raises(MetalabError, match=r"modulo=81 is for state indices"):
        read_histories(folder, modulo=81)


def test_a_recording_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "sweep" / "toy", toy())
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert located("sweep/toy") == tmp_path / "sweep" / "toy"
    assert_same(read_histories("sweep/toy"), toy())
