"""Provenance: which code, which versions, which machine. Written beside every sweep's results."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metalab.tracking import redacted

__all__ = ["code_version", "command", "command_to_go_on", "describe", "git_revision", "hardware", "versions"]

_PACKAGES = (
    "metalab", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "evosax", "hydra-core", "optuna",
    "mlflow", "orbax-checkpoint", "numpy", "scipy", "pandas", "pyarrow",
)  # fmt: skip
# What changes results when it changes.
_SHAPING = ("python", "jax", "jaxlib", "flax", "optax", "gymnax", "evosax", "optuna", "numpy", "scipy")
_COMPUTING = ("metalab", "inner_loops", "outer_loops")
_HOME = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Command, git revision, versions and hardware as plain data for ``hardware.json``."""
    return {"command": command(), "git": git_revision(), "versions": versions(), **hardware()}


def command() -> str:
    """How this process was called, as a shell would be told to call it again."""
    return redacted(shlex.join([_program(), *sys.argv[1:]]))


def command_to_go_on() -> str:
    """The same without ``--fresh``, which would throw away what this call has done."""
    # A beginning of an option is taken for the option.
    kept = [word for word in sys.argv[1:] if len(word) < 3 or not "--fresh".startswith(word)]
    return redacted(shlex.join([_program(), *kept]))


def _program() -> str:
    program = Path(sys.argv[0])
    return "metalab" if program.name == "__main__.py" else program.name


def git_revision(folder: Path | None = None) -> dict[str, Any]:
    """The commit that ``folder`` (the working directory by default) is at, and whether it was changed.

    Returns:
        ``{"commit": str | None, "changed": bool | None}``; None outside a repository or without git.
    """
    commit = _git("rev-parse", "HEAD", folder=folder)
    status = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit, "changed": None if status is None else bool(status)}


def code_version(modules: Iterable[str] = ()) -> dict[str, Any]:
    """The code that computes results: a hash of its sources, the versions of what it stands on, the commit.

    Args:
        modules: imported modules beside our own packages, for example those of a user's components.

    Returns:
        ``{"digest": str, "versions": {...}, "git": {...}}``; the digest covers sources and versions.
    """
    paths = [path for name in _COMPUTING for path in sorted((_HOME / name).rglob("*.py"))]
    for name in sorted(set(modules)):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and Path(file) not in paths:
            paths.append(Path(file))
    stands_on = {name: version for name, version in versions().items() if name in _SHAPING}
    digest = hashlib.sha256(json.dumps(stands_on, sort_keys=True).encode())
    for path in paths:
        digest.update(path.read_bytes())
    return {"digest": digest.hexdigest(), "versions": stands_on, "git": git_revision(_HOME)}


def versions() -> dict[str, str]:
    """Python's version and those of the installed packages that shape results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Host, processor, memory and JAX devices. Starts JAX's backend if it has not started."""
    import jax

    devices = jax.local_devices()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "backend": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
    }


def _git(*arguments: str, folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or a file system that hangs: not worth a run
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
