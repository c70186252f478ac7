"""Documents from local files and back: text files, JSON lines, Parquet.

A file with the suffix ``.jsonl`` holds one document a line and one with ``.parquet`` one a row, both in a
text column; a file of any other suffix is one document. Files are read piece by piece, in the order of their
names, and nothing is dropped silently: what cannot be read is counted by its reason.
"""

from __future__ import annotations

import dataclasses
import glob
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metalab.errors import ConfigError

__all__ = ["Document", "find_files", "read_documents", "told"]

_ROWS = 256  # of a Parquet file at a time


@dataclasses.dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        name: its file; with ``#N`` the row or line of it, from 0.
        text: what it says.
        record: all columns of its row; None where a file is one document.
    """

    name: str
    text: str
    record: dict[str, Any] | None = None


def find_files(patterns: Sequence[str], key: str = "corpus") -> list[Path]:
    """The files that paths, folders and globs (``**`` included) name, each once, in the order of their names.

    Raises:
        ConfigError: a pattern matches no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        whole = f"{pattern}/**/*" if Path(pattern).is_dir() else pattern
        files = {Path(name) for name in glob.glob(whole, recursive=True)}
        files = {path for path in files if path.is_file()}
        if not files:
            raise ConfigError(key, f"{pattern!r} matches no file; expected a path, a folder or a glob")
        found |= files
    return sorted(found)


def read_documents(files: Sequence[Path], column: str, skipped: Counter[str]) -> Iterator[Document]:
    """The documents of files, one at a time.

    Args:
        files: in the order in which they are read.
        column: that holds the text, in JSON lines and Parquet.
        skipped: counts by reason, added to.

    Raises:
        ConfigError: a Parquet file has no such column, or cannot be read at all.
    """
    for path in files:
        for document in _READERS.get(path.suffix, _whole_file)(path, column, skipped):
            if document.text.strip():
                yield document
            else:
                skipped["empty"] += 1


def told(skipped: Counter[str]) -> str:
    """What was skipped, in words: ``2 binary, 1 empty``; empty if nothing was."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()) if count)


def _whole_file(path: Path, column: str, skipped: Counter[str]) -> Iterator[Document]:
    del column
    text = _decoded(path.read_bytes(), skipped)
    if text is not None:
        yield Document(str(path), text)


def _json_lines(path: Path, column: str, skipped: Counter[str]) -> Iterator[Document]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            text = _decoded(line, skipped)
            record = None if text is None else _parsed(text)
            if not isinstance(record, dict):
                skipped["invalid JSON line"] += text is not None
            elif not isinstance(record.get(column), str):
                skipped[f"without text in {column!r}"] += 1
            else:
                yield Document(f"{path}#{number}", record[column], record)


def _parquet(path: Path, column: str, skipped: Counter[str]) -> Iterator[Document]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        table = parquet.ParquetFile(path)
    except ArrowException as error:
        raise ConfigError(str(path), f"is no Parquet file: {error}") from error
    if column not in table.schema_arrow.names:
        known = ", ".join(table.schema_arrow.names)
        raise ConfigError(str(path), f"has no column {column!r}; name the text's column, one of: {known}")
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS):
        for record in batch.to_pylist():
            if isinstance(record[column], str):
                yield Document(f"{path}#{number}", record[column], record)
            else:
                skipped[f"without text in {column!r}"] += 1
            number += 1


_READERS = {".jsonl": _json_lines, ".parquet": _parquet}


def _decoded(raw: bytes, skipped: Counter[str]) -> str | None:
    if b"\0" in raw:
        skipped["binary"] += 1
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        skipped["not UTF-8"] += 1
        return None


def _parsed(text: str) -> Any:
    """What a line of JSON holds; None: it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
