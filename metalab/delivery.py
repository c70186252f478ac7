"""Delivery of an outbox's operations to the tracking store: in few calls, and repeating changes nothing.

A run is found or created by its digest; a metric point has the same timestamp every time, so MLflow stores it
once; params are equal; an artifact that was removed after its delivery is not missed.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from metalab.errors import MetalabError
from metalab.spool import Operation
from metalab.tracking import BATCH, Handle, Store

__all__ = ["Delivery", "passing", "planned"]

# What a server says while it is overloaded, restarted or refuses a login that can be mended meanwhile.
_PASSING_STATUS = frozenset({401, 403, 408, 425, 429})
_LASTING_ERRNO = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
)


def planned(operations: Iterable[Operation]) -> list[Operation]:
    """The same as ``operations`` in fewer: run by run, metric points and tags of a run gathered.

    Points and tags are gathered up to the next operation of their run that is neither; points are cut into
    batches. Runs keep the order of their first operations, so a parent is opened before its children.

    >>> a, b = Operation("log", "a", {"rows": [["x", 0, 1.0]]}), Operation("tag", "b", {"tags": {"t": "1"}})
    >>> [(one.name, one.run) for one in planned([a, b, a])]
    [('log', 'a'), ('tag', 'b')]
    """
    by_run: dict[str, list[Operation]] = {}
    for operation in operations:
        by_run.setdefault(operation.run, []).append(operation)
    return [one for of_run in by_run.values() for one in _gathered(of_run)]


def _gathered(operations: Sequence[Operation]) -> Iterable[Operation]:
    """One run's operations, neighbouring logs and tags as one."""
    for loose, group in itertools.groupby(operations, lambda one: one.name in ("log", "tag")):
        if not loose:
            yield from group
            continue
        rows: list[Any] = []
        tags: dict[str, str] = {}
        for one in group:
            rows += one.body.get("rows", ())
            tags |= one.body.get("tags", {})
        run = operations[0].run
        for start in range(0, len(rows), BATCH):
            yield Operation("log", run, {"rows": rows[start : start + BATCH]})
        if tags:
            yield Operation("tag", run, {"tags": tags})


def passing(error: Exception) -> bool:
    """Whether the same call may succeed later: the store is away, busy, full or wants another login."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    else:
        status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUS
    return isinstance(error, OSError) and error.errno not in _LASTING_ERRNO


def _slim(run: Handle) -> Handle:
    """Without what delivery does not need: the runs of a large sweep are all remembered."""
    return dataclasses.replace(run, metrics={}, tags={})


class Delivery:
    """Does operations in a store.

    Args:
        store: of the sweep.
        folder: where the relative paths of artifacts begin.
        reject: called with what the store will never take, and why.
    """

    def __init__(self, store: Store, folder: Path, reject: Callable[[Operation, Exception], None]) -> None:
        self._store, self._folder, self._reject = store, folder, reject
        self._runs: dict[str, Handle] = {}
        self._actions: dict[str, Callable[..., None]] = {
            "open": self._open,
            "log": self._log,
            "tag": self._tag,
            "artifact": self._artifact,
            "close": self._close,
        }

    def apply(self, operation: Operation) -> None:
        """Does one operation, or rejects what repeating cannot mend.

        Raises:
            Exception: ``passing``; the operation can be done again as a whole.
        """
        try:
            self._actions[operation.name](operation.run, **operation.body)
        except Exception as error:
            if passing(error):
                raise
            self._reject(operation, error)

    def _run(self, digest: str) -> Handle:
        if digest not in self._runs:
            found = self._store.find(digest)
            if found is None:
                raise MetalabError(
                    f"no run {digest}: it was deleted, or what should have opened it was refused"
                )
            self._runs[digest] = _slim(found)
        return self._runs[digest]

    def _open(
        self,
        run: str,
        kind: str,
        name: str,
        parent: str | None,
        tags: dict[str, str],
        params: dict[str, str],
        start_ms: int,
    ) -> None:
        parent_id = None if parent is None else self._run(parent).run_id
        opened = self._store.open(kind, run, name, parent=parent_id, tags=tags, start_ms=start_ms)
        self._runs[run] = _slim(opened)

        def log(part: Sequence[tuple[str, str]]) -> None:
            self._store.params(opened.run_id, dict(part))

        # Apart from the opening: a param that changed since must not keep the run from being logged to.
        self._in_parts(list(params.items()), log, lambda part: Operation("params", run, dict(part)))

    def _log(self, run: str, rows: Sequence[Any]) -> None:
        handle = self._run(run)
        self._in_parts(
            rows,
            lambda part: self._store.log(handle, part),
            lambda part: Operation("log", run, {"rows": part}),
        )

    def _tag(self, run: str, tags: dict[str, str]) -> None:
        self._store.tag(self._run(run).run_id, **tags)

    def _artifact(self, run: str, path: str, folder: str | None, remove: bool) -> None:
        source = self._folder / path  # an absolute path stays what it is
        if not source.exists():
            if remove:
                return  # delivered before, by a process that was killed before it could say so
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(source))
        self._store.artifact(self._run(run).run_id, source, folder)
        if remove and source.is_dir():
            shutil.rmtree(source)
        elif remove:
            source.unlink()

    def _close(self, run: str, status: str, end_ms: int) -> None:
        self._store.close(self._run(run).run_id, status, end_ms=end_ms)

    def _in_parts(
        self,
        items: Sequence[Any],
        call: Callable[[Sequence[Any]], None],
        rejected: Callable[[Sequence[Any]], Operation],
    ) -> None:
        """Calls with all items; if that is refused, with halves, until only the culprits are left out."""
        try:
            if items:
                call(items)
        except Exception as error:
            if passing(error):
                raise
            if len(items) == 1:
                self._reject(rejected(items), error)
                return
            middle = len(items) // 2
            for half in (items[:middle], items[middle:]):
                self._in_parts(half, call, rejected)
