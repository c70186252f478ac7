"""How a sweep stands, read from its folder alone: while an engine runs it, and while the store is away.

Nothing is written, and nothing is locked: a reader must not be in an engine's way. Neither JAX nor MLflow is
imported, so that asking is quick.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from metalab.errors import MetalabError, nearest
from metalab.sweep.ledger import Commit, Manifest, read_commit, read_manifest
from metalab.sweep.reading import Outcome, StudyLog, read_mapping, read_space, read_study_log
from metalab.sweep.space import Space
from metalab.tracking import safe_name

__all__ = [
    "Candidate",
    "Engine",
    "Overview",
    "objectives_of",
    "read_overview",
    "read_points",
    "selection_of",
    "sweep_folder",
    "sweep_folders",
]

State = Literal["running", "ended", "stopped", "interrupted"]

_ALIVE_SECONDS = 60.0  # without a heartbeat an engine counts as dead; it beats every five
_BLOCK = 1 << 20  # bytes read at once
_ENDS = ("finished", "pruned", "diverged", "failed")


@dataclasses.dataclass(frozen=True)
class Engine:
    """Who held a sweep's folder last and has not let go of it.

    Attributes:
        host, pid: of the process.
        age: seconds since its last sign of life.
        alive: whether it lives, as far as one can tell from here.
    """

    host: str
    pid: int
    age: float
    alive: bool


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A point and how good it is.

    Attributes:
        number: of the point.
        objective: a value for each objective.
        values: the searched keys and what they are.
    """

    number: int
    objective: tuple[float, ...]
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Overview:
    """How a sweep stands at its last commit.

    Attributes:
        name: of its folder below the root.
        folder: of its working files.
        state: ``running``; ``ended``: all is done; ``stopped``: something is left, and nobody is at it;
            ``interrupted``: the same, and its engine went without a word.
        engine: who runs it, or ran it when it was interrupted; None: nobody does.
        points: total number of points.
        counts: points by ``finished``, ``pruned``, ``diverged``, ``failed``, ``running`` and ``waiting``.
        objectives, directions: of the study.
        best: the best point; with several objectives the Pareto front; empty: none has finished yet.
        steps_per_s: lane steps of points per second in the last call.
        seconds_left: of the points, at that pace; None: it is not known.
        at_most: whether points may be given up early, which makes ``seconds_left`` an upper bound.
        baselines_done, baselines: baselines that are finished, and all.
        records_waiting: committed operations that the store has not been given yet.
        records_refused: operations that it would not take.
        changes: how often a change of code or configuration was accepted.
        committed: seconds of the epoch of the last commit; 0: there is none yet.
    """

    name: str
    folder: Path
    state: State
    engine: Engine | None
    points: int
    counts: Mapping[str, int]
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    best: tuple[Candidate, ...]
    steps_per_s: float
    seconds_left: float | None
    at_most: bool
    baselines_done: int
    baselines: int
    records_waiting: int
    records_refused: int
    changes: int
    committed: float


def sweep_folders(root: Path) -> list[Path]:
    """The folders below a root in which sweeps, or single points, have run."""
    return sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/sweep.json"))


def sweep_folder(root: Path, name: str) -> Path:
    """The folder of a sweep (``NAME``) or of a point that was run alone (``NAME/single-...``).

    Raises:
        MetalabError: nothing of that name has run below this root.
    """
    folder = root.joinpath(*map(safe_name, name.split("/")))
    if not (folder / "sweep.json").is_file():
        known = [str(path.relative_to(root)) for path in sweep_folders(root)]
        raise MetalabError(f"no sweep named {name!r} in {root}: {nearest(name, known)}")
    return folder


def read_points(folder: Path) -> tuple[Manifest, Commit, StudyLog]:
    """What a sweep is, how far it has come, and what became of its points.

    Raises:
        MetalabError: a file of it is missing or cannot be read.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise MetalabError(f"{folder / 'sweep.json'} is not there: no sweep has run in this folder")
    commit = read_commit(folder)
    return manifest, commit, read_study_log(folder / "study.jsonl", commit.study)


def read_overview(folder: Path, root: Path) -> Overview:
    """How the sweep in a folder below ``root`` stands.

    Raises:
        MetalabError: a file of it is missing or cannot be read.
    """
    manifest, commit, study = read_points(folder)
    engine, counts = _engine(folder), _counts(manifest, commit, study)
    baselines = _baselines(folder, manifest, commit)
    return Overview(
        name=str(folder.relative_to(root)),
        folder=folder,
        state=_state(engine, counts["running"] + counts["waiting"] + baselines - len(commit.baselines)),
        engine=engine,
        points=manifest.points,
        counts=counts,
        objectives=objectives_of(manifest.config),
        directions=study.directions,
        best=_best(folder, manifest, study),
        steps_per_s=commit.steps_per_s,
        seconds_left=_seconds_left(manifest, commit, counts),
        at_most=_prunes(manifest.config),
        baselines_done=len(commit.baselines),
        baselines=baselines,
        records_waiting=_records_waiting(folder, commit),
        records_refused=_lines(folder / "outbox.rejected.jsonl"),
        changes=len(manifest.changes),
        committed=commit.written,
    )


def objectives_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the objectives of a resolved configuration, the default one written out."""
    named = (config.get("study") or {}).get("objective")
    if named is None:
        select = selection_of(config)
        named = f"evaluation/{select}/return" if select else "train/score"
    return (named,) if isinstance(named, str) else tuple(named)


def selection_of(config: Mapping[str, Any]) -> str | None:
    """The set of a resolved configuration that picks meta-parameters and points; None: there is none."""
    evaluation = config.get("evaluation") or {}
    return evaluation.get("select", "train" if "train" in (evaluation.get("sets") or {}) else None)


def _state(engine: Engine | None, left: int) -> State:
    if engine is not None:
        return "running" if engine.alive else "interrupted"
    return "stopped" if left else "ended"


def _baselines(folder: Path, manifest: Manifest, commit: Commit) -> int:
    """Number of the sweep's baselines; its file is written before its first commit."""
    if manifest.single or not commit.serial:
        return 0
    return len(read_mapping(folder / "sweep.yaml").get("baselines") or {})


def _engine(folder: Path) -> Engine | None:
    """Who the lock file speaks of; an engine that ends by itself, however it ends, empties the file."""
    try:
        beat = json.loads((folder / "lock").read_text())
        host, pid, age = str(beat["host"]), int(beat["pid"]), abs(time.time() - float(beat["time"]))
    except (OSError, ValueError, KeyError, TypeError):  # none, an empty one, or none of ours
        return None
    alive = age < _ALIVE_SECONDS and (host != platform.node() or _runs(pid))
    return Engine(host, pid, age, alive)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is someone else's
        return True
    return True


def _counts(manifest: Manifest, commit: Commit, study: StudyLog) -> dict[str, int]:
    statuses = [one.status for one in study.outcomes]
    counts = {status: statuses.count(status) for status in _ENDS}
    seated = commit.pack.numbers if commit.pack is not None else ()
    counts["running"] = sum(number is not None for number in seated)
    counts["waiting"] = manifest.points - sum(counts.values())
    return counts


def _seconds_left(manifest: Manifest, commit: Commit, counts: Mapping[str, int]) -> float | None:
    if commit.steps_per_s <= 0:
        return None
    done = sum(commit.pack.steps) if commit.pack is not None else 0
    steps = manifest.outer_steps * (counts["running"] + counts["waiting"]) - done
    return steps * manifest.seeds / commit.steps_per_s


def _prunes(config: Mapping[str, Any]) -> bool:
    pruner = (config.get("study") or {}).get("pruner") or "none"
    return (pruner.get("kind", "none") if isinstance(pruner, Mapping) else pruner) != "none"


def _best(folder: Path, manifest: Manifest, study: StudyLog) -> tuple[Candidate, ...]:
    found = study.best()
    if not found:
        return ()
    chosen = found if len(study.directions) > 1 else found[:1]
    space = read_space(folder, manifest)
    return tuple(_candidate(one, space) for one in chosen)


def _candidate(one: Outcome, space: Space) -> Candidate:
    assert one.objective is not None  # it is among the best
    return Candidate(one.number, one.objective, one.values(space))


def _records_waiting(folder: Path, commit: Commit) -> int:
    """Committed operations behind those that are delivered."""
    try:
        delivered = int((folder / "outbox.ack").read_text())
    except (OSError, ValueError):  # nothing is delivered yet
        delivered = 0
    return _lines(folder / "outbox.jsonl", delivered, commit.outbox)


def _lines(path: Path, start: int = 0, end: int | None = None) -> int:
    """Lines of a file between two of its bytes; 0 without a file."""
    found = 0
    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END) if end is None else end
            left -= file.seek(start)
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                found, left = found + block.count(b"\n"), left - len(block)
    except FileNotFoundError:
        return 0
    return found
