"""What several commands need: the root of the store, and tables for the terminal."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalab.errors import ConfigError

__all__ = ["aligned", "cut", "root_of", "terminal_width", "use_tracking_uri"]

_NARROW = 40  # a table that is cut to less says nothing


def root_of(arguments: argparse.Namespace) -> Path:
    """The folder named by ``--root``, which need not exist.

    Raises:
        ConfigError: it is a file.
    """
    root: Path = arguments.root.absolute()
    if root.exists() and not root.is_dir():
        raise ConfigError("--root", f"{arguments.root} is a file; expected a folder")
    return root


def use_tracking_uri(arguments: argparse.Namespace) -> None:
    """Makes ``--tracking-uri``, where the command has it and it was given, the store of this process."""
    address = getattr(arguments, "tracking_uri", None)
    if address:
        os.environ["MLFLOW_TRACKING_URI"] = address


def aligned(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows of equal length as lines with aligned columns.

    >>> aligned([["point", "status"], [3, "failed"], [12, 0.123456]])
    ['point  status', '3      failed', '12     0.1235']
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in lines]


def cut(line: str, width: int | None) -> str:
    """A line that fits the terminal; None: one that may be of any length.

    >>> cut("a long reason", 8), cut("short", 8), cut("a long reason", None)
    ('a lon...', 'short', 'a long reason')
    """
    if width is None or len(line) <= width:
        return line
    return line[: width - 3].rstrip() + "..."


def terminal_width() -> int | None:
    """Columns of the terminal; None: what is printed goes into a file or a pipe."""
    if not sys.stdout.isatty():
        return None
    return max(_NARROW, shutil.get_terminal_size().columns)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
