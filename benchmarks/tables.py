"""How benchmarks print: aligned columns, and under what conditions the figures were taken."""

from __future__ import annotations

import datetime
import os
import statistics
from collections.abc import Sequence

from metalab.provenance import git_revision, hardware, versions

__all__ = ["conditions", "load_average", "spread", "table"]

_NAMED = ("python", "jax", "jaxlib", "flax", "gymnax", "mlflow", "orbax-checkpoint")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their header; the first is aligned to the left, figures to the right.

    >>> print(table(["what", "s"], [["one", "1.0"], ["another", "10.0"]]))
    what        s
    one       1.0
    another  10.0
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, with the extremes where there are several values.

    >>> spread([1.0, 3.0, 2.0]), spread([1.0])
    ('2.0 (1.0-3.0)', '1.0')
    """
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def load_average() -> float:
    """Processes that ran or waited to run over the last minute: near 0 on an idle machine."""
    return os.getloadavg()[0]


def conditions(load_before: float) -> str:
    """Date, machine, versions and how busy the machine was. Starts JAX: call it when all is measured.

    Args:
        load_before: ``load_average`` before anything was measured.
    """
    machine, found, git = hardware(), versions(), git_revision()
    now = datetime.datetime.now(datetime.UTC)
    memory = (machine["memory_bytes"] or 0) / 2**30
    commit = f"{(git['commit'] or 'no revision')[:9]}{' and changes' if git['changed'] else ''}"
    return "\n".join(
        (
            f"date      {now:%Y-%m-%d %H:%M} UTC, load average {load_before:.2f} before it began",
            f"machine   {machine['cores']} cores of {machine['processor']}, {memory:.0f} GiB, "
            f"{machine['platform']}",
            f"devices   {machine['backend']} ({machine['device_kind']})",
            f"versions  {', '.join(f'{name} {found[name]}' for name in _NAMED)}; metalab at {commit}",
        )
    )
