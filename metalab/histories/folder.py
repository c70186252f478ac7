"""Recordings on disk.

A recording is a folder: ``manifest.json`` says what it is, and each of its Parquet files
``part-00000.parquet``, ... holds ``batch`` histories, one a row. Parts appear whole or not at all, so that a
recording that was interrupted lacks some of its parts and nothing else is wrong with it.

Columns of a part (schema version 1): ``task``, ``seed`` and ``length`` (int32), and ``obs``, ``action``,
``reward`` and ``start`` as the bytes of one history each (row-major, little-endian). What the bytes stand for
is metadata of the part's schema: ``metalab.dtypes``, a name to a NumPy dtype. The manifest has the shapes.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalab.durable import written_whole
from metalab.errors import MetalabError
from metalab.histories.arrays import ARRAYS, NUMBERS, Histories

__all__ = [
    "FOLDER_VARIABLE",
    "MANIFEST",
    "SCHEMA_VERSION",
    "Manifest",
    "files_of",
    "located",
    "missing_parts",
    "part_path",
    "part_rows",
    "read_manifest",
    "read_parts",
    "recordings",
    "use_root",
    "write_manifest",
    "write_part",
]

SCHEMA_VERSION = 1
FOLDER_VARIABLE = "METALAB_HISTORIES"
MANIFEST = "manifest.json"
_DTYPES = b"metalab.dtypes"

_root = Path("runs")


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
    written_whole(path / MANIFEST, lambda draft: draft.write_text(text, encoding="utf-8"))


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

    arrays = {name: np.ascontiguousarray(getattr(histories, name)) for name in ARRAYS}
    columns = {name: pa.array(getattr(histories, name), pa.int32()) for name in NUMBERS}
    for name, values in arrays.items():
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        size = values[0].nbytes
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(size), len(values), [None, pa.py_buffer(values)]
        )
    dtypes = json.dumps({name: values.dtype.name for name, values in arrays.items()}, sort_keys=True)
    table = pa.table(columns).replace_schema_metadata({_DTYPES: dtypes.encode()})
    written_whole(
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


def files_of(folder: Path) -> list[Path]:
    """The files that a recording is made of, as far as they are there."""
    return sorted([*folder.glob(MANIFEST), *folder.glob("part-*.parquet")])


def _read_part(folder: Path, number: int, manifest: Manifest) -> Histories:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = part_path(folder, number)
    count = len(part_rows(manifest, number))
    try:
        table = parquet.read_table(file)
        dtypes = json.loads((table.schema.metadata or {})[_DTYPES])
        arrays = {name: _from_bytes(table.column(name), dtypes[name], manifest, name) for name in ARRAYS}
        arrays |= {name: table.column(name).to_numpy().astype(np.int32) for name in NUMBERS}
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
