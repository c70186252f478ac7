"""Seconds that a process spends in some of its methods, measured while timed ones stand in for them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax

from benchmarks.processes import clock

__all__ = ["Stopwatch"]


class Stopwatch:
    """Times methods by section; a section's time is its own, without that of sections called inside it.

    Args:
        sections: section to a class and the name of its method.
        waited: sections whose results are waited for, where a method returns before its arrays are computed.

    Attributes:
        seconds: wall time by section.
        cpu: CPU-seconds of all threads of the process meanwhile, by section.
        calls: by section.
    """

    def __init__(self, sections: Mapping[str, tuple[type, str]], waited: Collection[str] = ()) -> None:
        self._sections, self._waited = sections, waited
        self._thread = threading.local()
        self.seconds = dict.fromkeys(sections, 0.0)
        self.cpu = dict.fromkeys(sections, 0.0)
        self.calls = dict.fromkeys(sections, 0)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Timed methods stand in for the real ones while it is open."""
        with contextlib.ExitStack() as stack:
            for section, (owner, name) in self._sections.items():
                method = getattr(owner, name)
                stack.callback(setattr, owner, name, method)
                setattr(owner, name, self._timed(section, method))
            yield

    def _timed(self, section: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inside = self._open_calls()
            inside.append((0.0, 0.0))
            before = clock()
            try:
                found = method(*args, **kwargs)
                return jax.block_until_ready(found) if section in self._waited else found
            finally:
                spent = _less(clock(), before)
                own = _less(spent, inside.pop())
                self.seconds[section] += own[0]
                self.cpu[section] += own[1]
                self.calls[section] += 1
                if inside:
                    inside[-1] = (inside[-1][0] + spent[0], inside[-1][1] + spent[1])

        return timed

    def _open_calls(self) -> list[tuple[float, float]]:
        """Of this thread: for each open call, outermost first, what timed calls inside it have taken."""
        if not hasattr(self._thread, "inside"):
            self._thread.inside = []
        return self._thread.inside


def _less(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] - other[0], one[1] - other[1]
