"""The spool of an outbox: operations as lines of a file, and how far they are delivered.

``outbox.jsonl`` holds one JSON array ``[name, run, body]`` per line. A position is a number of its bytes,
always at a line's end. ``outbox.ack`` holds the position up to which everything is delivered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from metalab.durable import sync
from metalab.errors import MetalabError

__all__ = ["REJECTED", "Operation", "Spool", "acknowledged"]

REJECTED = "outbox.rejected.jsonl"
_ACK = "outbox.ack"
_BLOCK = 1 << 20  # bytes


class Operation(NamedTuple):
    """Something to do in MLflow.

    Attributes:
        name: open, log, tag, artifact or close.
        run: digest of the run.
        body: what else it takes, by name; JSON.
    """

    name: str
    run: str
    body: dict[str, Any]


class Spool:
    """The files of an outbox. One thread appends and flushes; another may read and acknowledge.

    Args:
        folder: where they are, made if it is missing.
        position: bytes to keep; what stands behind them is cut off, and 0 forgets everything.

    Raises:
        MetalabError: the spool is shorter than ``position``.

    Attributes:
        path: of the operations.
        delivered: position up to which they are delivered, as it was on opening.
    """

    def __init__(self, folder: Path, position: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "outbox.jsonl"
        self._ack = folder / _ACK
        self._file = self.path.open("ab")
        size = self.path.stat().st_size
        if size < position:
            raise MetalabError(
                f"{self.path}: {size} bytes, but the sweep's last commit counts {position}: the file was "
                "changed or lost; put it back, or start anew with --fresh"
            )
        self._file.truncate(position)
        if position == 0:
            for stale in (self._ack, folder / REJECTED):
                stale.unlink(missing_ok=True)
        self.delivered = min(acknowledged(folder), position)
        self._size = position
        self._buffer: list[bytes] = []
        sync(folder)

    def append(self, operation: Operation) -> None:
        """Adds an operation; it is on disk after the next ``flush``."""
        self._buffer.append(_ENCODER.encode(operation).encode() + b"\n")

    def flush(self) -> int:
        """Brings what was appended to disk and returns the position behind it."""
        if self._buffer:
            block = b"".join(self._buffer)
            self._file.write(block)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._buffer.clear()
            self._size += len(block)
        return self._size

    def read(self, start: int, end: int, at_most: int) -> Iterator[tuple[Operation, int]]:
        """The operations from position ``start`` on, each with the position behind it.

        Args:
            start: a position.
            end: a position; no operation behind it is read.
            at_most: bytes; the operation in which they end is still read.
        """
        with self.path.open("rb") as file:
            file.seek(start)
            at = start
            while at < min(end, start + at_most):
                line = file.readline()
                at += len(line)
                yield Operation(*json.loads(line)), at

    def count(self, start: int, end: int) -> int:
        """Number of operations between two positions."""
        found = 0
        with self.path.open("rb") as file:
            file.seek(start)
            while (left := end - file.tell()) > 0:
                found += file.read(min(left, _BLOCK)).count(b"\n")
        return found

    def acknowledge(self, position: int) -> None:
        """Notes that everything up to ``position`` is delivered.

        Without fsync: a note that a power cut takes back makes operations be delivered once more, which
        changes nothing.
        """
        draft = self._ack.with_suffix(".ack.new")
        draft.write_text(str(position))
        draft.replace(self._ack)

    def close(self) -> None:
        """Closes the file; what was not flushed is gone."""
        self._file.close()


def acknowledged(folder: Path) -> int:
    """The position in a folder's spool up to which everything is delivered; 0: nothing is."""
    ack = folder / _ACK
    text = ack.read_text() if ack.exists() else ""
    return int(text) if text.isdecimal() else 0


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON does not know")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)
