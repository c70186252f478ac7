"""The sweep files and evaluation suites that come with metalab, found both in a clone and in a wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SUITES", "SWEEPS", "suite_names", "sweep_names"]

# The folder lies beside the package, wherever that is installed.
SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
SUITES = SWEEPS / "evaluation"


def sweep_names() -> list[str]:
    """The sweep files that come with metalab, by name."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def suite_names() -> list[str]:
    """The evaluation suites that come with metalab, by name."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))
