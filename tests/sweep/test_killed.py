"""SIGKILL at random moments: no run and no metric point lost or doubled, the same numbers to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.toy import assert_same_sweep, elsewhere, runs_of


@pytest.mark.parametrize(
    ("kills", "outer_steps"),
    [pytest.param(20, 12, marks=pytest.mark.slow), pytest.param(200, 120, marks=pytest.mark.long)],
    ids=["20", "200"],
)
def test_a_sweep_that_is_killed_again_and_again(root: Path, kills: int, outer_steps: int) -> None:
    whole = elsewhere(root, "whole")
    command = [
        sys.executable,
        "-m",
        "tests.sweep.killing",
        str(root),
        str(kills),
        "7",
        "0.03",
        str(outer_steps),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["start"] + told["chunks"] == kills
    assert told["chunks"] >= kills // 2  # the others hit the start of a life
    assert len(runs_of(root)) == 24
    assert len(runs_of(root, "sweep")) == 1
    assert_same_sweep(root, whole)
