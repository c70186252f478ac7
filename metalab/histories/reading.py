"""What is wanted of a recording, read whole or thinned."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalab.errors import MetalabError
from metalab.histories.arrays import Histories, compact, joined, rows_of, tenths, thinned
from metalab.histories.folder import Manifest, files_of, located, missing_parts, read_manifest, read_parts

__all__ = ["read_histories"]

_MOST_CACHED = 4  # readings that a process keeps


def read_histories(
    path: str | Path,
    *,
    every: int = 1,
    first: float = 0.0,
    last: float = 1.0,
    min_improvement: float | None = None,
    modulo: int | None = None,
) -> Histories:
    """Reads a recording, or what is wanted of it; the same question again gets the same arrays.

    Args:
        path: the recording's folder, or its name, see ``located``.
        every: keep each k-th episode, the first one included: a faster learner's history.
        first, last: keep the episodes from this share of the history to that one, at least one episode;
            ``first=0.9`` is the last tenth. The share is taken before ``every``.
        min_improvement: drop histories whose mean return of the last tenth of episodes does not exceed that
            of the first tenth by at least so much; None: keep all.
        modulo: keep the remainder of state indices: ``size ** 2`` leaves the cell of an index that also
            counts whether the agent has the key.

    Returns:
        Read-only arrays; ``S`` is the longest kept history.

    Raises:
        MetalabError: there is no recording, it is incomplete, damaged or of another schema; nothing is left;
            an argument is out of its range.
    """
    if every < 1:
        raise MetalabError(f"every: got {every}, expected a whole number of episodes, at least 1")
    if not 0.0 <= first < last <= 1.0:
        raise MetalabError(f"first={first}, last={last}: expected shares 0 <= first < last <= 1")
    folder = located(path)
    stamp = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files_of(folder))
    return _read(folder, stamp, every, first, last, min_improvement, modulo)


@functools.lru_cache(maxsize=_MOST_CACHED)
def _read(
    folder: Path,
    stamp: tuple[Any, ...],  # another recording under the same name is read anew
    every: int,
    first: float,
    last: float,
    min_improvement: float | None,
    modulo: int | None,
) -> Histories:
    del stamp
    manifest = _complete(folder)
    kept = []
    for part in read_parts(folder, manifest):
        if modulo is not None:
            part = part._replace(obs=_remainder(folder, part.obs, modulo))
        if min_improvement is not None:
            begun, ended = tenths(part)
            part = rows_of(part, ended - begun >= min_improvement)
        if len(part.length):
            kept.append(thinned(part, every, first, last))
    if not kept:
        raise MetalabError(
            f"{folder}: none of {manifest.histories} histories improves by {min_improvement} from its first "
            "to its last tenth of episodes; lower min_improvement"
        )
    whole = joined(kept)
    for array in whole:
        array.setflags(write=False)
    return whole


def _complete(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    missing = missing_parts(folder, manifest)
    if missing:
        raise MetalabError(
            f"{folder}: {manifest.parts - len(missing)} of {manifest.parts} parts are recorded; "
            f"`{manifest.command}` records the rest"
        )
    return manifest


def _remainder(folder: Path, obs: NDArray[Any], modulo: int) -> NDArray[Any]:
    if not np.issubdtype(obs.dtype, np.integer) or obs.ndim != 2:
        raise MetalabError(
            f"{folder}: modulo={modulo} is for state indices, and these are {obs.dtype} arrays"
        )
    return compact(obs.astype(np.int64) % modulo)
