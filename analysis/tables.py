"""Frames as the report's tables: text for people, all digits for CSV."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Table", "markdown", "number", "with_interval"]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its CSV file, without ending.
        caption: what it shows, its n and what its intervals are.
        columns: headers.
        rows: cells as text.
        frame: the same with all digits, for CSV.
        strong: indices of the rows to print bold.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    frame: pd.DataFrame
    strong: Sequence[int] = ()


def number(value: Any) -> str:
    """Four significant digits; whole numbers whole; ``-`` for what is missing.

    >>> number(0.012345), number(28816.0), number(3), number(float("nan")), number("tpe")
    ('0.01235', '28816', '3', '-', 'tpe')
    """
    if value is None:
        return "-"
    if isinstance(value, (bool, np.bool_, str)) or not isinstance(value, (int, float, np.number)):
        return str(value)
    if not np.isfinite(value):
        return "-"
    if float(value).is_integer() or abs(value) >= 10_000:
        return f"{float(value):.0f}"
    return f"{value:.4g}"


def with_interval(row: dict[str, Any], name: str, digits: int = 3) -> str:
    """``value [low, high]`` of a row's columns ``name, name_low, name_high``.

    >>> with_interval({"x": 1.08, "x_low": 1.02, "x_high": 1.1319}, "x")
    '1.080 [1.020, 1.132]'
    """
    value, low, high = (row.get(key, np.nan) for key in (name, f"{name}_low", f"{name}_high"))
    if not np.isfinite(value):
        return "-"
    if not (np.isfinite(low) and np.isfinite(high)):
        return _fixed(value, digits)
    return f"{_fixed(value, digits)} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


def markdown(table: Table) -> str:
    """The table as Markdown; what comes from a file cannot break out of its cell."""
    lines = ["| " + " | ".join(_cell(text) for text in table.columns) + " |"]
    lines.append("|" + " --- |" * len(table.columns))
    for index, row in enumerate(table.rows):
        mark = "**" if index in table.strong else ""
        lines.append("| " + " | ".join(f"{mark}{_cell(text)}{mark}" for text in row) + " |")
    return "\n".join(lines)


def _fixed(value: float, digits: int) -> str:
    """Equal digits after the point, so that bounds can be compared; fewer for large numbers."""
    size = abs(float(value))
    if size >= 1000:
        return f"{value:.0f}"
    if 0 < size < 10.0**-digits:
        return f"{value:.2g}"
    return f"{value:.{digits if size < 100 else 1}f}"


def _cell(text: str) -> str:
    return html.escape(str(text), quote=False).replace("|", "\\|").replace("\n", " ")
