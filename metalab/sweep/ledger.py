"""The ledger of a sweep: what it is (``sweep.json``) and how far it has come (``commit.json``).

``commit.json`` is replaced by an atomic rename after everything that it names is on disk: checkpoint, part of
the series, the study's journal, the outbox. What lies behind those positions has not happened.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalab.durable import written_whole
from metalab.errors import MetalabError
from metalab.sweep.space import difference
from metalab.tracking import flatten

__all__ = [
    "Commit",
    "Manifest",
    "PackState",
    "admit",
    "forget",
    "read_commit",
    "read_manifest",
    "write_commit",
]

FORMAT = 1
_SHOWN = 3  # differences named in a refusal


@dataclasses.dataclass(frozen=True)
class PackState:
    """The running pack as a checkpoint has it.

    Attributes:
        example: a point of its program.
        numbers: the point in each berth; None: nobody.
        points: digests of their configurations.
        steps: outer steps that each has done.
        width: lanes on the devices, padding included.
        checkpoint: serial of its checkpoint and of its last part.
    """

    example: int
    numbers: tuple[int | None, ...]
    points: tuple[str | None, ...]
    steps: tuple[int, ...]
    width: int
    checkpoint: int


@dataclasses.dataclass(frozen=True)
class Commit:
    """How far a sweep has come.

    Attributes:
        serial: counts the commits.
        study: logs of the study's journal.
        outbox: bytes of the outbox.
        pack: the running pack; None: none is.
        baselines: digests of the baselines that are done.
        tallies: ``device_steps`` (lane steps computed, empty berths included), ``needed_steps`` (those of
            points), ``trace_s``, ``compile_s``, ``run_s``, ``shrinks``, ``commits``; all calls together.
        steps_per_s: lane steps of points per second in this call, for the time left.
        written: seconds since the epoch.
    """

    serial: int = 0
    study: int = 0
    outbox: int = 0
    pack: PackState | None = None
    baselines: tuple[str, ...] = ()
    tallies: Mapping[str, float] = dataclasses.field(default_factory=dict)
    steps_per_s: float = 0.0
    written: float = 0.0


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a sweep is: the question that all its points answer.

    Attributes:
        id: of its run in the store.
        name: of its folder and experiment.
        single: one point, its search left aside.
        config: what must not change, see ``metalab.sweep.engine``.
        space: the search space in plain form.
        points: total.
        outer_steps, seeds: of every point.
        code: hash of the sources that compute, versions and git revision.
        changes: what was accepted on the way, each with its time.
        format: of these files.
    """

    id: str
    name: str
    single: bool
    config: Mapping[str, Any]
    space: Any
    points: int
    outer_steps: int
    seeds: int
    code: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = ()
    format: int = FORMAT


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a sweep's folder; None: nothing has run there.

    Raises:
        MetalabError: it is not readable.
    """
    found = _read(folder / "sweep.json")
    if found is None:
        return None
    return Manifest(**{**found, "changes": tuple(found["changes"])})


def read_commit(folder: Path) -> Commit:
    """The last commit in a sweep's folder; an empty one if there was none.

    Raises:
        MetalabError: it is not readable.
    """
    found = _read(folder / "commit.json")
    if found is None:
        return Commit()
    pack = found["pack"]
    if pack is not None:
        pack = PackState(**{**pack, **{key: tuple(pack[key]) for key in ("numbers", "points", "steps")}})
    return Commit(**{**found, "pack": pack, "baselines": tuple(found["baselines"])})


def write_commit(folder: Path, commit: Commit) -> None:
    """Replaces ``commit.json``: everything before is done, or nothing."""
    _write(folder / "commit.json", dataclasses.asdict(commit))


def admit(folder: Path, wanted: Manifest, accept: bool, unfinished: bool) -> Manifest:
    """Compares a sweep with what lies in its folder, and writes its manifest.

    Args:
        folder: of the sweep.
        wanted: as this call would have it.
        accept: take changes in, and record them.
        unfinished: whether anything is left to run: results of a finished sweep may be looked at with
            whatever code.

    Returns:
        The manifest that is in force.

    Raises:
        MetalabError: the search space, the configuration or the code is another one.
    """
    found = read_manifest(folder)
    if found is None:
        _write(folder / "sweep.json", dataclasses.asdict(wanted))
        return wanted
    remedies = f"start another sweep with name=NAME, throw this one away with --fresh{{}} ({folder})"
    if found.space != wanted.space:
        said = difference(found.space, wanted.space)
        raise MetalabError(
            f"search: the space of sweep {found.name!r} has changed: {said}; " + remedies.format("")
        )
    if wanted.points < found.points:
        raise MetalabError(
            f"study.points: sweep {found.name!r} has {found.points} points, {wanted.points} were asked for; "
            "points are the total and can only be raised; " + remedies.format("")
        )
    changed = _changes(found.config, wanted.config)
    if unfinished and found.code["digest"] != wanted.code["digest"]:
        changed.append(_code_words(found.code, wanted.code))
    if changed and not accept:
        shown = "; ".join(changed[:_SHOWN]) + (
            f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        )
        how = remedies.format(", or go on with it by --accept-changes, which records the change")
        raise MetalabError(f"sweep {found.name!r} was begun with something else: {shown}; {how}")
    code = wanted.code if unfinished else found.code
    history = [{"time": time.time(), "changes": changed}] if changed else []
    kept = dataclasses.replace(wanted, code=code, changes=(*found.changes, *history))
    _write(folder / "sweep.json", dataclasses.asdict(kept))
    return kept


def forget(folder: Path) -> None:
    """Removes what a sweep has left in its folder, its report included, its lock not."""
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = flatten(json.loads(json.dumps(before))), flatten(json.loads(json.dumps(after)))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) and (old.get(key) or new.get(key))]
    return [f"{key} {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}" for key in keys]


def _code_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    old, new = before["versions"], after["versions"]
    changed = [f"{k} {old.get(k)} -> {new.get(k)}" for k in {**old, **new} if old.get(k) != new.get(k)]
    return f"code {before['digest'][:8]} -> {after['digest'][:8]} ({', '.join(changed) or 'sources'})"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MetalabError(f"{path}: cannot be read ({error}); --fresh starts the sweep anew") from error
    if found.get("format", FORMAT) != FORMAT:
        raise MetalabError(
            f"{path}: written by another metalab (format {found['format']}); --fresh starts anew"
        )
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, default=str)
    written_whole(path, lambda draft: draft.write_text(text))
