"""The study's ledger: Optuna's journal in one file that is written at commits only.

Optuna keeps a study as a log of operations. The engine decides when what it has done counts: until then new
logs wait in memory, and what an interrupted run had written behind its last commit is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from metalab.errors import MetalabError

__all__ = ["Journal", "Storage"]


class Journal(BaseJournalBackend):
    """Logs in memory and, up to the last commit, in a file of one JSON object a line.

    One process at a time: the sweep's lock keeps others away.
    """

    def __init__(self, path: Path, position: int | None) -> None:
        """Reads a journal and cuts it.

        Args:
            path: the file; it need not be there.
            position: number of logs that are kept; None: all that were written whole.

        Raises:
            MetalabError: the file holds fewer logs, or something else than logs.
        """
        self._path = path
        written = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in written if line.endswith(b"\n")]
        if position is not None and position > len(whole):
            raise MetalabError(
                f"{path} holds {len(whole)} logs where {position} were committed: it was altered or lost; "
                "--fresh starts the sweep anew"
            )
        kept = whole if position is None else whole[:position]
        self._logs = [_log(line, number, path) for number, line in enumerate(kept, 1)]
        self._waiting: list[str] = []
        if len(kept) < len(written):
            os.truncate(path, sum(map(len, kept)))

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """All logs from a number on, those that wait included."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Takes logs in; they are on disk after the next ``commit``."""
        for log in logs:
            line = json.dumps(log, separators=(",", ":"))
            self._waiting.append(line)
            # Read back, so that a study that goes on and one that is opened again see the same.
            self._logs.append(json.loads(line))

    def commit(self) -> int:
        """Writes what waits and returns the number of logs that are now safe on disk."""
        if self._waiting:
            with self._path.open("ab") as file:
                file.write("".join(f"{line}\n" for line in self._waiting).encode())
                file.flush()
                os.fsync(file.fileno())
            self._waiting.clear()
        return len(self._logs)


class Storage(JournalStorage):
    """Optuna's storage over a journal, in which no trial ever waits to be run."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As declared by Optuna, whose every ask looks through all trials for one that waits."""
        if states == (TrialState.WAITING,):
            return []
        return super().get_all_trials(study_id, deepcopy, states)


def _log(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise MetalabError(f"{path}, line {number}: not a log ({error}); --fresh starts anew") from error
