"""Tracking: MLflow runs in one SQLite file, written in batches, found again by digest.

The fluent API is not used: it marks an interrupted run FINISHED. Timestamps are the run's start plus one
millisecond per step, so logging a point twice stores it once and a resumed run doubles nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalab.errors import MetalabError

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Handle", "Row", "Store", "client_of", "flatten", "redacted", "safe_name"]

Row = tuple[str, int, float]  # metric, step, value

BATCH = 1000  # metrics in one call: 10,000 points/s, against 270 one by one
_MAX_PARAM = 6000
_MAX_TAG = 8000
_PARAMS_AT_ONCE = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Handle:
    """A run.

    Attributes:
        run_id: MLflow's.
        start_ms: when it was first created; every metric's timestamp counts from it.
        status: RUNNING, FINISHED, FAILED or KILLED, as it was when it was found.
        metrics: last value of every metric, as it was when it was found.
        tags: as they were when it was found.
    """

    run_id: str
    start_ms: int
    status: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Store:
    """The runs of one sweep's experiment under ``<root>/mlflow.db``.

    Args:
        root: folder of the store, made if it is missing.
        experiment: name of the sweep.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        self.root = root.absolute()
        self.client = client_of(root)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            where = (self.root / "artifacts" / safe_name(experiment)).as_uri()
            self.experiment_id = self.client.create_experiment(experiment, artifact_location=where)
        else:
            self.experiment_id = found.experiment_id

    def find(self, kind: str, digest: str) -> Handle | None:
        """The run of this kind and digest."""
        query = f"tags.`metalab.kind` = '{kind}' and tags.`metalab.point` = '{digest}'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        return _handle(found[0]) if found else None

    def open(
        self,
        kind: str,
        digest: str,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Handle:
        """Finds or creates a run and marks it RUNNING.

        Args:
            kind: sweep, point or baseline.
            digest: what identifies the run among its kind.
            name: shown in the interface.
            parent: run id of the sweep.
            tags: more tags; values other than text are stored as JSON.
            params: configuration; logged once, when the run is created.
        """
        labels = {"metalab.kind": kind, "metalab.point": digest, **(tags or {})}
        if parent is not None:
            labels["mlflow.parentRunId"] = parent
        found = self.find(kind, digest)
        if found is None:
            made = self.client.create_run(self.experiment_id, run_name=name, tags=_texts(labels, _MAX_TAG))
            found = _handle(made)
        else:
            self.tag(found.run_id, **labels)
        # Params are immutable and logging equal ones again is allowed: a run that was killed between its
        # creation and its params gets them now.
        self.params(found.run_id, params or {})
        self.tag(found.run_id, **{"metalab.status": "RUNNING"})
        self.client.update_run(found.run_id, status="RUNNING")
        return found

    def log(self, run: Handle, rows: Iterable[Row]) -> None:
        """Stores metric points; infinities become NaN (MLflow would store them as 1.8e308)."""
        from mlflow.entities import Metric

        points = [Metric(key, _storable(value), run.start_ms + step, step) for key, step, value in rows]
        for start in range(0, len(points), BATCH):
            self.client.log_batch(run.run_id, metrics=points[start : start + BATCH])

    def tag(self, run_id: str, **tags: Any) -> None:
        """Sets tags; values other than text are stored as JSON."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(*item) for item in _texts(tags, _MAX_TAG).items()])

    def artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copies a file (or all of a folder) into the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def close(self, run_id: str, status: str) -> None:
        """Ends a run as FINISHED, FAILED or KILLED."""
        self.tag(run_id, **{"metalab.status": status})
        self.client.set_terminated(run_id, status=status)

    def forget(self, parent: str) -> None:
        """Deletes a sweep's run and its children (MLflow keeps them as deleted; they are found no more)."""
        children = self.client.search_runs(
            [self.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000
        )
        for run_id in [*(run.info.run_id for run in children), parent]:
            self.client.delete_run(run_id)

    def params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Logs configuration, which cannot be changed afterwards; logging the same again is allowed."""
        from mlflow.entities import Param

        items = [Param(*item) for item in _texts(params, _MAX_PARAM).items()]
        for start in range(0, len(items), _PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=items[start : start + _PARAMS_AT_ONCE])


def client_of(root: Path) -> Any:
    """A client of the store under ``root``, made if it is missing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    root.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{root.absolute() / 'mlflow.db'}")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots: what a run's params are called."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def redacted(text: str) -> str:
    """``text`` without the passwords of the addresses in it."""
    return re.sub(r"(\w+://[^\s/:@]*):[^\s/@]*@", r"\1:***@", text)


def safe_name(name: str) -> str:
    """The name of a sweep, which becomes a folder.

    Raises:
        MetalabError: it could leave its folder, or a file system would refuse it.
    """
    if not _NAME.fullmatch(name):
        raise MetalabError(
            f"name: got {name!r}, expected letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return name


def _handle(run: Run) -> Handle:
    return Handle(
        run_id=run.info.run_id,
        start_ms=run.info.start_time,
        status=run.info.status,
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _texts(items: Mapping[str, Any], limit: int) -> dict[str, str]:
    return {key: redacted(_text(value))[:limit] for key, value in items.items()}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    with contextlib.suppress(TypeError):  # what JSON does not know is stored as it prints
        return json.dumps(value)
    return str(value)


def _storable(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
