"""Errors that a user can mend: one line that names the place, what was given and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ConfigError", "MetalabError", "cause_of", "nearest"]


class MetalabError(ValueError):
    """A mistake of the user's, said in one line; the command line prints it and exits with code 2."""


class ConfigError(MetalabError):
    """Something in a sweep file, or in an override of it, that cannot be.

    Attributes:
        key: dotted path of the key at fault; empty: the file as a whole.
        problem: what was given, what is allowed, the remedy.
        file: the file, where it is known.
    """

    def __init__(self, key: str, problem: str, file: Path | str | None = None) -> None:
        """Makes the one line ``file: key: problem``."""
        self.key = " ".join(key.split())
        self.problem = " ".join(problem.split())
        self.file = file
        super().__init__(": ".join(str(p) for p in (file, self.key, self.problem) if p))

    def at(self, file: Path | str) -> ConfigError:
        """The same error with its file named."""
        return ConfigError(self.key, self.problem, file)


def nearest(given: str, known: Iterable[str]) -> str:
    """The tail of a message: the nearest known name as a question, and all known names.

    >>> nearest("learning_rat", ["learning_rate", "b1"])
    "did you mean 'learning_rate'? known: b1, learning_rate"
    >>> nearest("zzz", [])
    'none is known'
    """
    names = sorted(known)
    if not names:
        return "none is known"
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(names)


def cause_of(error: BaseException) -> str:
    """An exception as one line: its type and the first line of what it says.

    >>> cause_of(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
