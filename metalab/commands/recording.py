"""``metalab record`` and ``histories``: what learners lived, and what of it there is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from metalab.commands.shared import aligned, root_of

__all__ = ["histories", "record"]


def record(arguments: argparse.Namespace) -> int:
    """Records what a sweep file says in its section ``record``."""
    root = root_of(arguments)
    from metalab.devices import configure

    configure(arguments.devices)
    from metalab.config import load
    from metalab.errors import MetalabError
    from metalab.sweep.recording import record_all

    overrides = [word for word in arguments.overrides if "=" in word or word.startswith("~")]
    names = [word for word in arguments.overrides if word not in overrides]
    spec = load(arguments.file, overrides, smoke=arguments.smoke)
    if not spec.recordings:
        raise MetalabError(f"{spec.path}: has no section `record`: there is nothing to record")
    folders = record_all(spec, root, names, fresh=arguments.fresh)
    print("\n".join(map(str, folders)))
    return 0


def histories(arguments: argparse.Namespace) -> int:
    """Lists the recordings there are, or summarises those of a name or a folder."""
    from metalab.histories import MANIFEST, recordings, use_root

    use_root(root_of(arguments))
    found = sorted(file.parent for file in recordings().rglob(MANIFEST))
    if arguments.recording is not None:
        found = _chosen(arguments.recording, found)
    if not found:
        print(
            f"no recordings below {recordings()}; `metalab record FILE` makes those of a sweep file",
            file=sys.stderr,
        )
        return 0
    rows = [_row(folder) for folder in found]
    print("\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)])))
    if arguments.recording is not None:
        for folder in found:
            print("\n" + _details(folder))
    return 0


def _chosen(given: str, found: list[Path]) -> list[Path]:
    """The recordings of this name, of a sweep of this name, or in this folder.

    Raises:
        MetalabError: there is none.
    """
    from metalab.errors import MetalabError, nearest
    from metalab.histories import MANIFEST, recordings

    names = {path.relative_to(recordings()).as_posix(): path for path in found}
    chosen = [path for name, path in names.items() if name == given or given in Path(name).parts]
    if not chosen and (Path(given) / MANIFEST).is_file():
        chosen = [Path(given).absolute()]
    if not chosen:
        raise MetalabError(f"there is no recording {given!r}; {nearest(given, names)}")
    return chosen


def _row(folder: Path) -> dict[str, Any]:
    import numpy as np

    from metalab.histories import missing_parts, read_manifest, read_parts, tenths

    manifest = read_manifest(folder)
    done = manifest.parts - len(missing_parts(folder, manifest))
    ends = [tenths(part) for part in read_parts(folder, manifest)]
    first, last = (
        np.concatenate([pair[end] for pair in ends] or [np.full(1, np.nan)]).mean() for end in (0, 1)
    )
    size = sum(file.stat().st_size for file in folder.glob("part-*.parquet"))
    return {
        "recording": manifest.name,
        "source": manifest.settings["inner"]["kind"],
        "split": manifest.split or "-",
        "tasks": manifest.settings["count"],
        "histories": manifest.histories,
        "steps": manifest.steps,
        "first tenth": float(first),
        "last tenth": float(last),
        "MB": round(size / 1e6, 1),
        "state": "complete" if done == manifest.parts else f"{done}/{manifest.parts} parts",
    }


def _details(folder: Path) -> str:
    import yaml

    from metalab.histories import read_manifest

    manifest = read_manifest(folder)
    told = {
        "folder": str(folder),
        "horizon": manifest.horizon,
        "actions": manifest.num_actions,
        "states": manifest.num_states,
        "settings": dict(manifest.settings),
        "commit": manifest.origin.get("git", {}).get("commit"),
        "command": manifest.command,
    }
    return yaml.safe_dump(told, sort_keys=False).rstrip()
