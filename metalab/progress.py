"""Progress: a live bar on a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

__all__ = ["Progress", "duration"]

_LINE_EVERY = 5.0  # seconds between two plain lines


class Progress:
    """What a sweep tells the person who waits for it; any thread may speak.

    Args:
        show: True: always, False: never, None: a bar on a terminal and lines elsewhere.
    """

    def __init__(self, show: bool | None = None) -> None:
        self._silent = show is False
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0
        self._points = self._steps_a_point = 0
        self._guard = threading.Lock()

    def say(self, line: str) -> None:
        """One line, whatever else is on the screen."""
        if self._silent:
            return
        with self._guard:
            if self._bar is not None:
                self._bar.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)

    def begin(self, points: int, steps_a_point: int) -> None:
        """A pack starts or goes on.

        Args:
            points: of the whole sweep.
            steps_a_point: lane steps of one: outer steps times seeds.
        """
        self._points, self._steps_a_point = points, steps_a_point
        self._last_line = 0.0
        if self._silent or self._bar is not None or not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.percentage:>3.0f}%"),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("sweep", total=points * steps_a_point, note="compiling")
        self._bar.start()

    def step(self, ended: int, running: int, done: int, pace: float, best: float | None) -> None:
        """After a chunk.

        Args:
            ended: points.
            running: points.
            done: lane steps of the points that run.
            pace: lane steps per second.
            best: objective so far.
        """
        total = self._points * self._steps_a_point
        steps = ended * self._steps_a_point + done
        parts = [f"{ended}/{self._points} points ended", f"{running} running", f"{pace:.1f} lane steps/s"]
        if best is not None:
            parts.append(f"best {best:.4g}")
        if pace > 0:
            parts.append(f"{duration((total - steps) / pace)} left")
        note = ", ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=steps, note=note)
        elif time.monotonic() - self._last_line >= _LINE_EVERY or ended >= self._points:
            self._last_line = time.monotonic()
            self.say(note)

    def end(self) -> None:
        """The sweep is over or stops."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(150), duration(7260)
    ('42 s', '2 min 30 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
