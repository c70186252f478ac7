"""Guards of a running sweep: one engine at a time, and stopping when asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Literal

from metalab.errors import MetalabError

__all__ = ["StopRequest", "SweepStopped", "sweep_lock"]

_BEAT_SECONDS = 5.0
_FRESH_SECONDS = 60.0  # twelve heartbeats: a host so busy that it misses all of them is as good as dead
_WIDTH = 400  # bytes of a heartbeat; a host's name has 255 at most

_Flock = Literal["ours", "held", "absent"]


class SweepStopped(Exception):
    """A sweep stopped at a chunk's end, its state saved.

    Attributes:
        exit_code: what the process should exit with: 128 + the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopRequest:
    """Remembers SIGINT and SIGTERM until the engine asks; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Takes over both signals; outside the main thread, where nobody can, it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises ``SweepStopped`` if a signal has come."""
        if self.signum is not None:
            raise SweepStopped(self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


@contextlib.contextmanager
def sweep_lock(folder: Path, what: str = "sweep") -> Iterator[str | None]:
    """Holds a sweep's folder while the block runs; however this process ends, another can go on after it.

    The system's lock (flock) tells the processes of one host apart; where it does not reach other hosts, or
    does not exist at all, the heartbeat in the lock file speaks for its process. Hosts must agree on the time
    to within a minute.

    Args:
        folder: of the sweep.
        what: else the folder is of, for the messages.

    Yields:
        None, or what there is to say of a process that ended without letting go of the folder.

    Raises:
        MetalabError: another process runs this sweep.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        flock = _flock(descriptor)
        before = _Heartbeat.read(descriptor)
        if flock == "held" or (before is not None and _lives(before, flock)):
            raise MetalabError(f"{folder}: another metalab runs this {what} ({_described(before, flock)})")
        with _beating(descriptor):
            yield None if before is None else f"adopts the {what} of {before}, which ended without finishing"
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class _Heartbeat:
    """Who held a sweep last, and when it was last alive, in seconds of the epoch."""

    host: str
    pid: int
    time: float

    @classmethod
    def read(cls, descriptor: int) -> _Heartbeat | None:
        """The lock file's content; None: it is empty, or no heartbeat."""
        text = os.pread(descriptor, _WIDTH, 0).decode(errors="replace")
        try:
            content = json.loads(text)
            return cls(str(content["host"]), int(content["pid"]), float(content["time"]))
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def age(self) -> float:
        """Seconds since it; other hosts' clocks may differ a little, to either side."""
        return abs(time.time() - self.time)

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def _flock(descriptor: int) -> _Flock:
    """Tries to take the system's lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        return "absent"
    return "ours"


def _lives(beat: _Heartbeat, flock: _Flock) -> bool:
    """Whether a process lives that the system's lock, which is not held, tells nothing of."""
    if beat.age >= _FRESH_SECONDS:
        return False
    if beat.host != platform.node():
        return True
    return flock == "absent" and _runs(beat.pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is someone else's
        return True
    return True


def _described(beat: _Heartbeat | None, flock: _Flock) -> str:
    if beat is None:
        return "it has not said which; wait for it or stop it first"
    seen = f"{beat}, last sign of life {beat.age:.0f} s ago"
    if flock == "held":
        return f"{seen}; wait for it or stop it first"
    left = _FRESH_SECONDS - beat.age
    return f"{seen}; wait for it or stop it first; if it is dead, start again in {left:.0f} s"


@contextlib.contextmanager
def _beating(descriptor: int) -> Iterator[None]:
    """Writes a heartbeat to the lock file, at once and then regularly; empties the file at the end."""
    _beat(descriptor)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            # A full or absent disk must not end the heartbeat: the next one may succeed.
            with contextlib.suppress(OSError):
                _beat(descriptor)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.ftruncate(descriptor, 0)


def _beat(descriptor: int) -> None:
    content = {"host": platform.node(), "pid": os.getpid(), "time": round(time.time(), 3)}
    # One write of always the same length: no reader sees half of it, or the rest of a longer one.
    os.pwrite(descriptor, json.dumps(content).ljust(_WIDTH).encode()[:_WIDTH], 0)
    os.fsync(descriptor)  # other hosts read the disk
