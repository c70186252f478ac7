"""Crops of histories: they never cross into another one, and every step hears of the step before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.data.recorded import Crops, Recorded, draw_crops, draw_crops_on_host
from metalab.errors import MetalabError
from metalab.histories import Histories
from tests.history_toys import numbered, random_histories, write_recording

EPISODE = 3


def check_crops(crops: Any, histories: Histories, window: int) -> None:
    """All that a crop of ``numbered`` histories must be."""
    obs, before, reward, done, action, counted = (np.asarray(leaf) for leaf in crops)
    row, step = obs // 100, obs % 100
    assert (row == row[:, :1]).all()  # of one history
    length = histories.length[row[:, 0]]
    start = step[:, 0]
    np.testing.assert_array_equal(counted, start[:, None] + np.arange(window) < length[:, None])
    for at in np.argwhere(counted):
        now = start[at[0]] + at[1]
        told = (step[*at], action[*at], before[*at], reward[*at], done[*at])
        # the reward of step t is t + 1, so that before step t it is t
        assert told == (now, now, now - 1, now, now > 0 and now % EPISODE == 0)
    assert (counted.sum(axis=1) == np.minimum(length, window)).all()  # whole wherever the history is


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    window=st.integers(2, 12),
    at_start=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_is_of_one_history_and_hears_its_own_past(lengths, window, at_start, seed):
    histories = numbered(lengths, 20, EPISODE)
    crops = draw_crops_on_host(np.random.default_rng(seed), histories, 16, window, at_start)
    check_crops(crops, histories, window)
    if at_start == 1.0:
        assert (crops.obs[:, 0] % 100 == 0).all()


def test_the_program_draws_the_same_kind_of_crops():
    histories = numbered([4, 20, 15], 20, EPISODE)
    crops: Crops = jax.jit(lambda key, share: draw_crops(key, histories, 400, 6, share))(
        jax.random.key(0), 0.1
    )
    check_crops(crops, histories, 6)
    # Pairs: 1 + 15 + 10 = 26, drawn with 0.9; else any of three histories from its start.
    row, start = np.asarray(crops.obs)[:, 0] // 100, np.asarray(crops.obs)[:, 0] % 100
    share = np.bincount(row, minlength=3) / 400
    np.testing.assert_allclose(
        share, [0.9 / 26 + 0.1 / 3, 0.9 * 15 / 26 + 0.1 / 3, 0.9 * 10 / 26 + 0.1 / 3], atol=0.08
    )
    assert start.max() == 14  # the last step from which six are left


def test_a_recording_of_another_part_is_refused(tmp_path: Path):
    write_recording(tmp_path, random_histories(), split="held_out")
    with pytest.raises(MetalabError, match=r"recorded on part 'held_out' .* part='train' is asked for"):
        Recorded(path=str(tmp_path)).load()
    assert len(Recorded(path=str(tmp_path), part="held_out").load().length) == 4
    assert len(Recorded(path=str(tmp_path), part="").load().length) == 4


def test_a_recording_must_be_named():
    with pytest.raises(MetalabError, match=r"histories.path: not given"):
        Recorded().load()
