"""The outbox: what the engine wants recorded goes to a file, and a thread of its own brings it to MLflow.

The engine never waits for MLflow, and MLflow never makes a sweep fail. Only what the engine has released,
after its commit, is delivered; so a sweep that is resumed from its last commit records nothing twice and
misses nothing. While the store is away everything waits in the file, across processes if need be.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from metalab.delivery import Delivery, planned
from metalab.errors import cause_of
from metalab.spool import REJECTED, Operation, Spool
from metalab.tracking import MAX_PARAM, MAX_TAG, Row, Store, redacted, texts

__all__ = ["Outbox"]

_AT_ONCE = 4 << 20  # bytes gathered before they are delivered: about 70,000 metric points
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries


class Outbox:
    """The records of a sweep on their way to MLflow.

    Args:
        folder: of the sweep; holds the spool, and relative paths of artifacts begin there.
        make_store: makes the tracking store, in the writer's thread.
        position: bytes of the spool that the last commit knows; 0: none, the sweep begins.
        say: told, in one line, when the store is away, when it is back, and what it refuses.

    Raises:
        MetalabError: the spool is shorter than ``position``.
    """

    def __init__(
        self, folder: Path, make_store: Callable[[], Store], position: int, say: Callable[[str], None]
    ) -> None:
        self._folder, self._make_store, self._say = folder.absolute(), make_store, say
        self._spool = Spool(self._folder, position)
        self._changed = threading.Condition()
        self._released, self._delivered = position, self._spool.delivered
        self._waiting = self._spool.count(self._delivered, position)
        self._stopping = self._abandoned = self._ended = False
        self._delivery: Delivery | None = None
        self._refused: set[tuple[str, type[Exception]]] = set()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of operations that are not delivered, those not released among them."""
        return self._waiting

    def open(
        self,
        run: str,
        kind: str,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        start_ms: int | None = None,
    ) -> None:
        """Finds or creates a run and marks it RUNNING; opening again adds tags and params.

        Args:
            run: its digest, unique in the sweep's experiment.
            kind: sweep, point or baseline.
            name: shown in MLflow.
            parent: digest of the run that it belongs to.
            tags: values other than text are stored as JSON.
            params: configuration, which cannot be changed later.
            start_ms: when it began, in milliseconds of the epoch; None: now. An existing run keeps its own.
        """
        body = {"kind": kind, "name": name, "parent": parent}
        body |= {"tags": texts(tags or {}, MAX_TAG), "params": texts(params or {}, MAX_PARAM)}
        self._append("open", run, {**body, "start_ms": _now() if start_ms is None else start_ms})

    def log(self, run: str, rows: Iterable[Row]) -> None:
        """Metric points: name, step and value of each."""
        self._append("log", run, {"rows": list(rows)})

    def tag(self, run: str, **tags: Any) -> None:
        """Sets tags; values other than text are stored as JSON."""
        self._append("tag", run, {"tags": texts(tags, MAX_TAG)})

    def artifact(self, run: str, path: Path, folder: str | None = None, remove: bool = False) -> None:
        """Copies a file, or all of a folder, into the run's artifacts.

        Args:
            run: digest.
            path: must stay as it is until it is delivered.
            folder: of the artifacts; None: at their top.
            remove: delete ``path`` after its delivery.
        """
        source = path.absolute()
        if source.is_relative_to(self._folder):  # so that the sweep's folder can be moved
            source = source.relative_to(self._folder)
        self._append("artifact", run, {"path": str(source), "folder": folder, "remove": remove})

    def close(self, run: str, status: str) -> None:
        """Ends a run as FINISHED, FAILED or KILLED."""
        self._append("close", run, {"status": status, "end_ms": _now()})

    def flush(self) -> int:
        """Brings everything to disk and returns the spool's length in bytes: the position for a commit."""
        return self._spool.flush()

    def release(self, position: int) -> None:
        """Lets the writer deliver up to ``position``, which a commit must know by now."""
        with self._changed:
            self._released = position
            self._changed.notify_all()

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until everything released is delivered.

        Args:
            timeout: seconds; None: as long as it takes, which is for ever while the store is away.

        Returns:
            Whether it is.
        """
        with self._changed:
            self._changed.wait_for(self._idle, timeout)
            return self._delivered >= self._released

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the writer after the call it is in; what is not delivered stays for the next outbox.

        Args:
            timeout: seconds to wait for that call, which a hanging server can make long.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)
        self._abandoned = True
        self._spool.close()

    def _append(self, name: str, run: str, body: dict[str, Any]) -> None:
        self._spool.append(Operation(name, run, body))
        with self._changed:
            self._waiting += 1

    def _idle(self) -> bool:
        return self._delivered >= self._released or self._ended

    # What follows runs in the writer's thread.

    def _work(self) -> None:
        # The writer repeats calls itself. MLflow's own repetition would make stopping slow, and a run whose
        # creation was not confirmed would be created twice instead of being looked for.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        try:
            while operations := self._next():
                _, end = operations[-1]
                if not self._deliver(planned(one for one, _ in operations)) or self._abandoned:
                    return
                self._spool.acknowledge(end)
                with self._changed:
                    self._delivered = end
                    self._waiting -= len(operations)
                    self._changed.notify_all()
        except Exception as error:  # the sweep goes on; what was not delivered is by the next outbox
            self._say(f"recording in MLflow has ended ({_cause(error)}); {self._spool.path} keeps the rest")
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> list[tuple[Operation, int]]:
        """Operations to deliver together; empty: the outbox was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._delivered < self._released)
            if self._stopping:
                return []
            start, end = self._delivered, self._released
        return list(self._spool.read(start, end, _AT_ONCE))

    def _deliver(self, operations: Iterable[Operation]) -> bool:
        """Does the operations; False: the outbox was stopped before the last."""
        return all(not self._stopping and self._insist(operation) for operation in operations)

    def _insist(self, operation: Operation) -> bool:
        """Does an operation as often as it takes; False: the outbox was stopped before it was done."""
        wait, said = _FIRST_WAIT, False
        while (error := self._try(operation)) is not None:
            if not said and wait > _FIRST_WAIT:  # what half a second mends is not worth a word
                said = True
                self._say(
                    f"MLflow does not take the sweep's records ({_cause(error)}); the sweep goes on, "
                    f"{self._spool.path} keeps them, and delivery is tried again and again"
                )
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, wait):
                    return False
            wait = min(2 * wait, _LONGEST_WAIT)
        if said:
            self._say(f"MLflow takes the sweep's records again; {self._waiting} operations wait for it")
        return True

    def _try(self, operation: Operation) -> Exception | None:
        """Does an operation; returns what speaks for doing it again."""
        try:
            if self._delivery is None:
                self._delivery = Delivery(self._make_store(), self._folder, self._reject)
            self._delivery.apply(operation)
        except ImportError:  # an installation that is not whole: waiting does not mend it
            raise
        except Exception as error:  # an absent store has many faces; the caller says which it is
            return error
        return None

    def _reject(self, operation: Operation, error: Exception) -> None:
        """Writes aside what the store will never take; says it once for each kind of it."""
        path = self._folder / REJECTED
        with path.open("a") as file:
            file.write(json.dumps({"error": _cause(error), "operation": operation}) + "\n")
        kind = (operation.name, type(error))
        if kind not in self._refused:
            self._refused.add(kind)
            self._say(
                f"MLflow refuses a {operation.name} of run {operation.run} ({_cause(error)}); {path} keeps "
                "it, and others of the kind"
            )


def _now() -> int:
    """Milliseconds of the epoch."""
    return time.time_ns() // 1_000_000


def _cause(error: Exception) -> str:
    """In one line, without the password that a server's address may hold."""
    return redacted(cause_of(error))
