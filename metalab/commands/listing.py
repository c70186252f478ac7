"""``metalab list``: components, sweep files and evaluation suites, a line each."""

from __future__ import annotations

import argparse
from pathlib import Path

from metalab.errors import ConfigError, nearest

__all__ = ["list_all"]


def list_all(arguments: argparse.Namespace) -> int:
    """Prints the names of one group, or of all groups."""
    from metalab.catalogue import groups

    known = [*groups(), "sweeps", "suites"]
    if arguments.group is not None and arguments.group not in known:
        raise ConfigError("list", f"unknown group {arguments.group!r}; {nearest(arguments.group, known)}")
    for group in known if arguments.group is None else [arguments.group]:
        rows = _rows(group)
        if not rows:
            continue
        if arguments.group is None:
            print(f"{group}:")
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            print(f"  {name:<{width}}  {text}".rstrip())
    return 0


def _rows(group: str) -> list[tuple[str, str]]:
    from metalab import resources
    from metalab.catalogue import entries

    if group == "sweeps":
        return [(name, _described(resources.SWEEPS / f"{name}.yaml")) for name in resources.sweep_names()]
    if group == "suites":
        return [(name, _described(resources.SUITES / f"{name}.yaml")) for name in resources.suite_names()]
    return [(e.name, f"{e.summary} [{e.paper}]" if e.paper else e.summary) for e in entries(group)]


def _described(path: Path) -> str:
    """The first line of a file's description, else of its leading comment."""
    import yaml

    text = path.read_text(encoding="utf-8")
    lines = str((yaml.safe_load(text) or {}).get("description") or text.lstrip("# ")).splitlines()
    return lines[0] if lines else ""
