"""Folders of sweeps as an engine leaves them, without an engine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metalab.spec import Study as Settings
from metalab.sweep.ledger import Commit, Manifest, PackState, admit, write_commit
from metalab.sweep.space import parse_space
from metalab.sweep.study import Study

SEARCH = {"inner.gain": "choice(1, [2, 3], high)", "outer.rate": "tag(log, interval(0.01, 1))"}


def settings(sampler: str = "random", points: int | None = 6, **changes: Any) -> Settings:
    """Study settings with one maximised objective."""
    base = {"batch": None, "seed": 0, "objectives": ("train/score",), "directions": ("maximize",)}
    return Settings(sampler=sampler, points=points, over_seeds="mean", **{**base, **changes})


def open_study(folder: Path, how: Settings, search: Any = SEARCH) -> Study:
    """The study of a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return Study.open(how, parse_space(search), folder / "study.jsonl")


def commit(
    folder: Path,
    study: Study,
    *,
    search: Any = SEARCH,
    config: Mapping[str, Any] | None = None,
    seated: Mapping[int, int] | None = None,
    seeds: int = 2,
    outer_steps: int = 10,
    **changes: Any,
) -> Commit:
    """Writes a commit and what else lies in the folder.

    Args:
        folder: of the sweep.
        study: is committed.
        search: the section.
        config: more of the sweep file.
        seated: number of each point that runs to the outer steps that it has done.
        seeds, outer_steps: of every point.
        changes: of the commit.
    """
    content = {"name": folder.name, "seeds": seeds, **(config or {})}
    manifest = Manifest(
        id="m",
        name=folder.name,
        single=False,
        config=content,
        space=parse_space(search).plain(),
        points=study.total,
        outer_steps=outer_steps,
        seeds=seeds,
        code={"digest": "0", "versions": {}},
    )
    admit(folder, manifest, accept=True, unfinished=True)
    for name in ("sweep.yaml", "composed.yaml"):
        (folder / name).write_text(yaml.safe_dump({**content, "search": search}, sort_keys=False))
    numbers, steps = tuple(seated or ()), tuple((seated or {}).values())
    pack = PackState(0, numbers, tuple(f"run {n}" for n in numbers), steps, len(steps), 1) if seated else None
    made = Commit(**{"serial": 1, "study": study.commit(), "pack": pack, "written": time.time(), **changes})
    write_commit(folder, made)
    return made


def beat(folder: Path, *, age: float = 0.0, host: str | None = None, pid: int | None = None) -> None:
    """A heartbeat in the folder's lock file."""
    content = {"host": host or platform.node(), "pid": pid or os.getpid(), "time": time.time() - age}
    (folder / "lock").write_text(json.dumps(content).ljust(400))
