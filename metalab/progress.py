"""Progress: a live bar on a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Progress"]

_LINE_EVERY = 5.0  # seconds between two plain lines of one pack


class Progress:
    """What a sweep tells the person who waits for it.

    Args:
        show: True: always, False: never, None: a bar on a terminal and lines elsewhere.
    """

    def __init__(self, show: bool | None = None) -> None:
        self._silent = show is False
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0
        self._start = 0.0
        self._first = 0
        self._total = 0
        self._lanes = 0
        self._title = ""

    def say(self, line: str) -> None:
        """One line, whatever else is on the screen."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def begin(self, title: str, lanes: int, first_step: int, total_steps: int) -> None:
        """A pack of ``lanes`` lanes starts (or continues) at ``first_step``."""
        self._title, self._lanes, self._first, self._total = title, lanes, first_step, total_steps
        self._start, self._last_line = time.monotonic(), 0.0
        if self._silent or not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total_steps, completed=first_step, note="compiling")
        self._bar.start()

    def step(self, step: int, alive: int, best: float | None) -> None:
        """Outer steps done, lanes that have not diverged, best selection score so far."""
        note = self._note(step, alive, best)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
        elif time.monotonic() - self._last_line >= _LINE_EVERY or step >= self._total:
            self._last_line = time.monotonic()
            self.say(f"{self._title}: step {step}/{self._total}, {note}")

    def end(self) -> None:
        """The pack is over."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _note(self, step: int, alive: int, best: float | None) -> str:
        elapsed = time.monotonic() - self._start
        rate = (step - self._first) / elapsed if elapsed > 0 else 0.0
        left = (self._total - step) / rate if rate > 0 else 0.0
        parts = [f"{alive}/{self._lanes} lanes alive", f"{rate * self._lanes:.1f} lane steps/s"]
        if best is not None:
            parts.append(f"best {best:.4g}")
        return ", ".join([*parts, f"{left:.0f} s left"])
