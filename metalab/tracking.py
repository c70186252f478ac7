"""Tracking: MLflow runs in one SQLite file or on a server, written in batches, found again by digest.

The environment variable ``MLFLOW_TRACKING_URI`` says where they are; without it, ``mlflow.db`` in the root.
The fluent API is not used: it marks an interrupted run FINISHED. Timestamps are the run's start plus one
millisecond per step, so logging a point twice stores it once and a resumed run doubles nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import math
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalab.errors import MetalabError

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = [
    "BATCH",
    "MAX_PARAM",
    "MAX_TAG",
    "Handle",
    "Row",
    "Store",
    "address",
    "check_address",
    "client_of",
    "flatten",
    "redacted",
    "safe_name",
    "texts",
]

Row = tuple[str, int, float]  # metric, step, value

BATCH = 1000  # metrics in one call: 10,000 points/s, against 270 one by one
MAX_PARAM = 6000  # characters; MLflow cuts the rest off
MAX_TAG = 8000
_PARAMS_AT_ONCE = 100
_HEALTH_SECONDS = 5.0
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
    """The runs of one sweep's experiment.

    Args:
        root: folder of the store, see ``address``.
        experiment: name of the sweep.

    Raises:
        MetalabError: the experiment was deleted in MLflow.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        self.root = root.absolute()
        self.client = client_of(root)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            where = (self.root / "artifacts" / safe_name(experiment)).as_uri()
            served = _is_server(address(root))  # a server decides where artifacts lie
            self.experiment_id = self.client.create_experiment(experiment, None if served else where)
        elif found.lifecycle_stage == "deleted":
            raise MetalabError(
                f"experiment {experiment!r} was deleted in MLflow: restore it with "
                f"`mlflow experiments restore -x {found.experiment_id}`, or give the sweep another name"
            )
        else:
            self.experiment_id = found.experiment_id

    def find(self, digest: str) -> Handle | None:
        """The run of this digest."""
        query = f"tags.`metalab.point` = '{digest}'"
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
        start_ms: int | None = None,
    ) -> Handle:
        """Finds or creates a run and marks it RUNNING.

        Args:
            kind: sweep, point or baseline.
            digest: what identifies the run in its experiment.
            name: shown in the interface.
            parent: run id of the sweep.
            tags: more tags; values other than text are stored as JSON.
            params: configuration; equal ones may be logged again, others are refused.
            start_ms: when it began, in milliseconds of the epoch, should it be created; None: now.
        """
        labels = {"metalab.kind": kind, "metalab.point": digest, **(tags or {}), "metalab.status": "RUNNING"}
        if parent is not None:
            labels["mlflow.parentRunId"] = parent
        found = self.find(digest)
        if found is None:
            made = self.client.create_run(
                self.experiment_id, run_name=name, start_time=start_ms, tags=texts(labels, MAX_TAG)
            )
            found = _handle(made)
        else:
            self.tag(found.run_id, **labels)
            self.client.update_run(found.run_id, status="RUNNING")
        # Params are immutable and logging equal ones again is allowed: a run that was killed between its
        # creation and its params gets them now.
        self.params(found.run_id, params or {})
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

        self.client.log_batch(run_id, tags=[RunTag(*item) for item in texts(tags, MAX_TAG).items()])

    def artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Copies a file (or all of a folder) into the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def close(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Ends a run as FINISHED, FAILED or KILLED, now or at ``end_ms`` milliseconds of the epoch."""
        self.tag(run_id, **{"metalab.status": status})
        self.client.set_terminated(run_id, status=status, end_time=end_ms)

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

        items = [Param(*item) for item in texts(params, MAX_PARAM).items()]
        for start in range(0, len(items), _PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=items[start : start + _PARAMS_AT_ONCE])


def address(root: Path) -> str:
    """Where the runs are: ``MLFLOW_TRACKING_URI``, or the SQLite file under ``root``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def check_address(uri: str) -> None:
    """Asks a tracking server whether it is there; other addresses are taken as they are.

    Args:
        uri: as ``address`` gives it.

    Raises:
        MetalabError: no MLflow server answers there.
    """
    if not _is_server(uri):
        return
    health = urllib.request.Request(re.sub(r"//[^/@]*@", "//", uri.rstrip("/")) + "/health")
    try:
        with urllib.request.urlopen(health, timeout=_HEALTH_SECONDS, context=_trust(uri)):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):  # it is there, and asks who is calling
            return
        cause = f"it answers {error.code} to /health"
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = str(getattr(error, "reason", error))
    raise MetalabError(
        f"MLFLOW_TRACKING_URI: no MLflow server at {redacted(uri)} ({cause}); start it, correct the address, "
        "or unset the variable to record in a file"
    )


def client_of(root: Path) -> Any:
    """A client of the store, whose SQLite file is made if it is missing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for noisy in ("alembic", "mlflow.tracking"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It prints a traceback of what it then raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow.tracking import MlflowClient

    root.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=address(root))


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
    if "://" not in text:  # nearly all texts: a sweep's params are many
        return text
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


def texts(items: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Values as MLflow stores them: text as it is, all else as JSON, without passwords, cut at ``limit``.

    >>> texts({"rate": 0.1, "name": "sgd", "sizes": [8, 8]}, MAX_PARAM)
    {'rate': '0.1', 'name': 'sgd', 'sizes': '[8, 8]'}
    """
    return {key: redacted(_text(value))[:limit] for key, value in items.items()}


def _handle(run: Run) -> Handle:
    return Handle(
        run_id=run.info.run_id,
        start_ms=run.info.start_time,
        status=run.info.status,
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _trust(uri: str) -> ssl.SSLContext | None:
    """What MLflow's own settings say of a server's certificate."""
    if not uri.startswith("https://"):
        return None
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    with contextlib.suppress(TypeError):  # what JSON does not know is stored as it prints
        return json.dumps(value)
    return str(value)


def _storable(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
