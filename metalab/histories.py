"""Recorded learning histories: what learners saw, did and were paid, in the order of their training.

A recording is a folder: ``manifest.json`` says what it is, and each of its Parquet files
``part-00000.parquet``, ... holds ``batch`` histories, one a row. Parts appear whole or not at all, so that a
recording that was interrupted lacks some of its parts and nothing else is wrong with it.

Columns of a part (schema version 1): ``task``, ``seed`` and ``length`` (int32), and ``obs``, ``action``,
``reward`` and ``start`` as the bytes of one history each (row-major, little-endian). What the bytes stand for
is metadata of the part's schema: ``metalab.dtypes``, a name to a NumPy dtype. The manifest has the shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metalab.errors import MetalabError

__all__ = [
    "FOLDER_VARIABLE",
    "MANIFEST",
    "SCHEMA_VERSION",
    "Histories",
    "Manifest",
    "compact",
    "compact_reward",
    "located",
    "missing_parts",
    "part_path",
    "part_rows",
    "read_histories",
    "read_manifest",
    "read_parts",
    "recordings",
    "returns_of",
    "tenths",
    "use_root",
    "write_manifest",
    "write_part",
]

SCHEMA_VERSION = 1
FOLDER_VARIABLE = "METALAB_HISTORIES"
MANIFEST = "manifest.json"
_ARRAYS = ("obs", "action", "reward", "start")  # columns of bytes
_NUMBERS = ("task", "seed", "length")
_DTYPES = b"metalab.dtypes"
_TENTHS = 10  # a history's first and last tenth say whether it improves
_MOST_CACHED = 4  # readings that a process keeps

_root = Path("runs")


class Histories(NamedTuple):
    """``N`` histories of ``S`` steps: of one learner in one environment each, in the order of training.

    Attributes:
        obs: [N, S, ...] observations; state indices in the smallest integers that hold them, else float32.
        action: [N, S] int8, or int32 where there are more than 127.
        reward: [N, S] int8 where all are whole and small, else float32.
        start: [N, S] bool, the step begins an episode.
        length: [N] int32, steps that count; the rest is padding (zeros).
        task: [N] int32, number of the task within the recording.
        seed: [N] int32, number of the life on this task.
    """

    obs: NDArray[Any]
    action: NDArray[Any]
    reward: NDArray[Any]
    start: NDArray[np.bool_]
    length: NDArray[np.int32]
    task: NDArray[np.int32]
    seed: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a recording is.

    Attributes:
        name: of the recording.
        split: part of the tasks that it was made on (``train``, ``held_out``, ``all``); empty: not said.
        settings: configuration of the source, its tasks and the sizes; another one is another recording.
        histories: N, as planned.
        batch: histories of one part.
        steps: S of each.
        observation_shape: of one observation; ``[]`` for a state index.
        num_actions: A.
        num_states: above every state index; None where observations are none.
        horizon: steps of an episode at most; None: not known.
        command: that makes or completes the recording.
        origin: git revision and versions of what recorded.
        schema: version of this form.
    """

    name: str
    split: str
    settings: Mapping[str, Any]
    histories: int
    batch: int
    steps: int
    observation_shape: tuple[int, ...]
    num_actions: int
    num_states: int | None
    horizon: int | None
    command: str
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @property
    def parts(self) -> int:
        """Number of part files."""
        return -(-self.histories // self.batch)


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
    stamp = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in _files(folder))
    return _read(folder, stamp, every, first, last, min_improvement, modulo)


def located(path: str | Path) -> Path:
    """The folder of a recording: as given, else below the folder of recordings.

    Sweep files name recordings in the second way, ``SWEEP/NAME``: what they say is the same on every machine.
    """
    given = Path(path)
    return given.absolute() if given.is_absolute() or (given / MANIFEST).is_file() else recordings() / given


def recordings() -> Path:
    """The folder of recordings: ``$METALAB_HISTORIES``, else ``histories`` below this process's root."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _root / "histories").absolute()


def use_root(root: Path) -> None:
    """Makes ``root`` the folder below which this process finds its recordings; ``runs`` without it.

    Components hold the names of recordings, not folders: where the root is must not make another point.
    """
    global _root
    _root = root


def read_manifest(path: str | Path) -> Manifest:
    """What a recording's ``manifest.json`` says.

    Raises:
        MetalabError: there is none, or it is damaged or of another schema.
    """
    file = located(path) / MANIFEST
    if not file.is_file():
        raise MetalabError(
            f"{path}: no recording is there, nor at {file.parent}; `metalab record FILE` makes those of a "
            "sweep file, `metalab histories` lists what there is"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema == SCHEMA_VERSION:
            return Manifest(**{**content, "observation_shape": tuple(content["observation_shape"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MetalabError(
            f"{file}: is no manifest of a recording ({type(error).__name__}); "
            "record it again: metalab record FILE NAME --fresh"
        ) from error
    raise MetalabError(
        f"{file}: schema version {schema}, this metalab reads {SCHEMA_VERSION}; "
        "record it again: metalab record FILE NAME --fresh"
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json``, making the folder."""
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=True) + "\n"
    _atomically(path / MANIFEST, lambda draft: draft.write_text(text, encoding="utf-8"))


def part_path(path: Path, number: int) -> Path:
    """The file of a part."""
    return path / f"part-{number:05d}.parquet"


def part_rows(manifest: Manifest, number: int) -> range:
    """The histories that a part holds."""
    start = number * manifest.batch
    return range(start, min(start + manifest.batch, manifest.histories))


def missing_parts(path: Path, manifest: Manifest) -> list[int]:
    """The parts that are still to be recorded."""
    return [number for number in range(manifest.parts) if not part_path(path, number).is_file()]


def write_part(path: Path, number: int, histories: Histories) -> None:
    """Writes a part; it is there whole, on disk and under its name, or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    arrays = {name: np.ascontiguousarray(getattr(histories, name)) for name in _ARRAYS}
    columns = {name: pa.array(getattr(histories, name), pa.int32()) for name in _NUMBERS}
    for name, values in arrays.items():
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        size = values[0].nbytes
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(size), len(values), [None, pa.py_buffer(values)]
        )
    dtypes = json.dumps({name: values.dtype.name for name, values in arrays.items()}, sort_keys=True)
    table = pa.table(columns).replace_schema_metadata({_DTYPES: dtypes.encode()})
    _atomically(
        part_path(path, number),
        lambda draft: parquet.write_table(table, draft, compression="zstd", use_dictionary=False),
    )


def read_parts(path: Path, manifest: Manifest) -> Iterator[Histories]:
    """The parts of a recording that are there, in order, whole.

    Raises:
        MetalabError: a part is damaged.
    """
    for number in range(manifest.parts):
        if part_path(path, number).is_file():
            yield _read_part(path, number, manifest)


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest of int8, int16 and int32 that holds them; others as float32.

    >>> compact(np.array([0, 200])).dtype.name, compact(np.array([0.5])).dtype.name
    ('int16', 'float32')
    """
    if values.dtype == np.bool_:
        return values.astype(np.int8)
    if not np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    fits = [kind for kind in (np.int8, np.int16) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    return values.astype(fits[0] if fits else np.int32)


def compact_reward(values: NDArray[Any]) -> NDArray[Any]:
    """Rewards as int8 where all are whole and small, else as float32.

    >>> compact_reward(np.array([0.0, 1.0])).dtype.name, compact_reward(np.array([0.0, 0.5])).dtype.name
    ('int8', 'float32')
    """
    whole = np.all(values == np.rint(values)) and np.all(np.abs(values) <= np.iinfo(np.int8).max)
    return values.astype(np.int8 if whole else np.float32)


def returns_of(histories: Histories) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The return of every episode.

    An episode that the recording's end cut off counts with what it was paid until then.

    Returns:
        Returns [N, E], zero behind the last episode of a history, and the numbers of episodes [N].
    """
    number, count = _episodes(histories)
    found = np.zeros((len(count), int(count.max())))
    valid = _valid(histories)
    rows = np.broadcast_to(np.arange(len(count))[:, None], number.shape)
    np.add.at(found, (rows[valid], number[valid]), histories.reward[valid].astype(np.float64))
    return found, count


def tenths(histories: Histories) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N] mean returns of the first and of the last tenth of a history's episodes, at least one episode."""
    returns, count = returns_of(histories)
    sums = np.concatenate([np.zeros((len(count), 1)), np.cumsum(returns, axis=1)], axis=1)
    tenth = np.maximum(count // _TENTHS, 1)
    rows = np.arange(len(count))
    return sums[rows, tenth] / tenth, (sums[rows, count] - sums[rows, count - tenth]) / tenth


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
            part = _rows(part, ended - begun >= min_improvement)
        if len(part.length):
            kept.append(_thinned(part, every, first, last))
    if not kept:
        raise MetalabError(
            f"{folder}: none of {manifest.histories} histories improves by {min_improvement} from its first "
            "to its last tenth of episodes; lower min_improvement"
        )
    whole = _joined(kept)
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


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(MANIFEST), *folder.glob("part-*.parquet")])


def _read_part(folder: Path, number: int, manifest: Manifest) -> Histories:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = part_path(folder, number)
    count = len(part_rows(manifest, number))
    try:
        table = parquet.read_table(file)
        dtypes = json.loads((table.schema.metadata or {})[_DTYPES])
        arrays = {name: _from_bytes(table.column(name), dtypes[name], manifest, name) for name in _ARRAYS}
        arrays |= {name: table.column(name).to_numpy().astype(np.int32) for name in _NUMBERS}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise MetalabError(
            f"{file}: is no part of this recording ({type(error).__name__}); delete it, and "
            f"`{manifest.command}` records it again"
        ) from error
    if len(arrays["task"]) != count:
        raise MetalabError(
            f"{file}: holds {len(arrays['task'])} histories, {MANIFEST} says {count}; delete it, and "
            f"`{manifest.command}` records it again"
        )
    return Histories(**arrays)


def _from_bytes(column: Any, dtype: str, manifest: Manifest, name: str) -> NDArray[Any]:
    shape = manifest.observation_shape if name == "obs" else ()
    raw = b"".join(column.to_pylist())
    values = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
    return values.reshape(len(column), manifest.steps, *shape)


def _valid(histories: Histories) -> NDArray[np.bool_]:
    """[N, S] which steps count."""
    return np.arange(histories.action.shape[1]) < histories.length[:, None]


def _episodes(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each step's episode [N, S] and how many there are [N]; the first step begins one."""
    begins = histories.start & _valid(histories)
    begins[:, 0] = True
    number = np.cumsum(begins, axis=1) - 1
    return number, number[:, -1] + 1


def _thinned(histories: Histories, every: int, first: float, last: float) -> Histories:
    """The wanted episodes of each history, moved together."""
    if every == 1 and first == 0.0 and last == 1.0:
        return histories
    number, count = _episodes(histories)
    low = np.minimum(np.rint(first * count), count - 1)[:, None]
    high = np.maximum(np.rint(last * count)[:, None], low + 1)
    wanted = _valid(histories) & (number >= low) & (number < high) & ((number - low) % every == 0)
    length = wanted.sum(axis=1)
    rows, columns = np.nonzero(wanted)  # row by row: the order within a history stays
    place = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)

    def moved(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(values), int(length.max()), *values.shape[2:]), values.dtype)
        out[rows, place] = values[rows, columns]
        return out

    arrays = {name: moved(getattr(histories, name)) for name in _ARRAYS}
    return histories._replace(length=length.astype(np.int32), **arrays)


def _rows(histories: Histories, kept: NDArray[np.bool_]) -> Histories:
    return Histories._make(array[kept] for array in histories)


def _joined(pieces: list[Histories]) -> Histories:
    """Histories of several parts, padded to the longest; a dtype that holds all of them."""
    steps = max(piece.action.shape[1] for piece in pieces)

    def join(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(
            [np.pad(a, [(0, 0), (0, steps - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in arrays]
        )

    arrays = {name: join([getattr(piece, name) for piece in pieces]) for name in _ARRAYS}
    numbers = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in _NUMBERS}
    return Histories(**arrays, **numbers)


def _remainder(folder: Path, obs: NDArray[Any], modulo: int) -> NDArray[Any]:
    if not np.issubdtype(obs.dtype, np.integer) or obs.ndim != 2:
        raise MetalabError(
            f"{folder}: modulo={modulo} is for state indices, and these are {obs.dtype} arrays"
        )
    return compact(obs.astype(np.int64) % modulo)


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a draft beside ``path``, brings it to disk and gives it its name."""
    draft = path.with_name(path.name + ".new")
    write(draft)
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
