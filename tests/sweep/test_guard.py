"""The lock of a sweep: refused while its holder lives, adopted when it is dead."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalab.errors import MetalabError
from metalab.sweep import guard
from metalab.sweep.guard import sweep_lock

HOLD = """
import sys, time
from pathlib import Path
from metalab.sweep.guard import sweep_lock
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def write_heartbeat(folder: Path, host: str, pid: int, seconds_ago: float) -> None:
    content = {"host": host, "pid": pid, "time": time.time() - seconds_ago}
    (folder / "lock").write_text(json.dumps(content))


def test_a_live_holder_is_named_and_refused(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    expected = (
        rf"another metalab runs this sweep \(pid {holder.pid} on {re.escape(platform.node())}, last sign"
    )
    with pytest.raises(MetalabError, match=expected), sweep_lock(tmp_path):
        pass


def test_a_killed_holder_is_adopted_at_once(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with sweep_lock(tmp_path) as note:
        expected = f"adopts the sweep of pid {holder.pid} on {platform.node()}, which ended without finishing"
        assert note == expected


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, MetalabError])
def test_an_orderly_end_leaves_nothing_to_adopt(tmp_path: Path, error: type[BaseException] | None) -> None:
    def hold() -> None:
        with sweep_lock(tmp_path):
            if error is not None:
                raise error

    if error is None:
        hold()
    else:
        with pytest.raises(error):
            hold()
    assert (tmp_path / "lock").read_bytes() == b""
    with sweep_lock(tmp_path) as note:
        assert note is None


def test_a_fresh_heartbeat_of_another_host_is_refused_and_left_alone(tmp_path: Path) -> None:
    write_heartbeat(tmp_path, "elsewhere", 7, seconds_ago=20)
    before = (tmp_path / "lock").read_bytes()
    expected = r"pid 7 on elsewhere, last sign of life 20 s ago; wait .* if it is dead, start again in 40 s"
    with pytest.raises(MetalabError, match=expected), sweep_lock(tmp_path):
        pass
    assert (tmp_path / "lock").read_bytes() == before


def test_a_stale_heartbeat_of_another_host_is_adopted(tmp_path: Path) -> None:
    write_heartbeat(tmp_path, "elsewhere", 7, seconds_ago=61)
    with sweep_lock(tmp_path) as note:
        assert note is not None and "pid 7 on elsewhere" in note


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"host": "a", "pid": "x", "time": 0}'])
def test_what_is_no_heartbeat_is_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with sweep_lock(tmp_path) as note:
        assert note is None


def test_the_heartbeat_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BEAT_SECONDS", 0.01)

    def beat() -> dict[str, object]:
        return json.loads((tmp_path / "lock").read_text())

    with sweep_lock(tmp_path):
        first = beat()
        assert (first["host"], first["pid"]) == (platform.node(), os.getpid())
        limit = time.monotonic() + 10
        while beat()["time"] == first["time"]:
            assert time.monotonic() < limit


class TestWithoutFlock:
    """A file system whose lock does not exist: the heartbeat and the process number decide."""

    @pytest.fixture(autouse=True)
    def _absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(guard.fcntl, "flock", refuse)

    def test_a_running_process_of_this_host_is_refused(self, tmp_path: Path) -> None:
        write_heartbeat(tmp_path, platform.node(), os.getpid(), seconds_ago=1)
        with pytest.raises(MetalabError, match=f"pid {os.getpid()}"), sweep_lock(tmp_path):
            pass

    def test_an_ended_process_of_this_host_is_adopted(self, tmp_path: Path) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        write_heartbeat(tmp_path, platform.node(), ended.pid, seconds_ago=1)
        with sweep_lock(tmp_path) as note:
            assert note is not None and f"pid {ended.pid}" in note
