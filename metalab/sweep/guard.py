"""Guards of a running sweep: one engine at a time, and stopping at the next chunk when asked to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from metalab.errors import MetalabError

__all__ = ["StopRequest", "SweepStopped", "sweep_lock"]


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
def sweep_lock(folder: Path) -> Iterator[None]:
    """Holds a sweep's folder; the system lets go of it when this process ends, however it ends.

    Raises:
        MetalabError: another engine holds it.
    """
    path = folder / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise MetalabError(
                f"{folder}: another metalab runs this sweep ({file.read().strip() or 'unknown'}); "
                "wait for it or stop it first"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}))
        file.flush()
        yield
