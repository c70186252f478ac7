"""A sweep's MLflow store as pandas frames.

The store is ``<root>/mlflow.db`` with artifacts below ``<root>/artifacts``; one experiment holds one sweep:
a parent run (``metalab.kind = sweep``), one child run a point and one a baseline. Everything is read, nothing
is written here. mlflow is imported when a store is opened, for its import takes more than a second.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pandas as pd
import yaml

from metalab.errors import MetalabError, nearest
from metalab.tracking import client_of

__all__ = ["SweepData", "evaluations", "load_sweep", "open_store", "records", "series", "sweep_runs", "typed"]

RUN_COLUMNS = (
    "run_id", "kind", "label", "name", "number", "point", "status", "diverged", "start_time", "duration_s",
)  # fmt: skip
SERIES_COLUMNS = ("seed", "step", "metric", "value")
EVALUATION_COLUMNS = ("seed", "set", "task", "outer_step", "update", "env_steps", "metric", "value")
_TAG = "metalab."


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: frames do not compare to one bool
class SweepData:
    """All that a report needs of one sweep.

    Attributes:
        name: of the sweep.
        root: folder of the store.
        parent_id: MLflow id of the sweep's own run.
        folder: of that run's artifacts.
        parent_tags: its tags.
        config: the resolved sweep file; {} if it was not kept.
        hardware: what the engine noted of machine, versions and time; {} if it was not kept.
        searched: dotted keys of the search space.
        runs: one row a point or baseline: ``RUN_COLUMNS``, searched keys typed by value, metrics.
        parameters: all parameters as text, one row a run (index: run id).
        series: long: ``run_id, label, seed, step, metric, value``.
        evaluations: long: ``run_id, label, kind`` and ``EVALUATION_COLUMNS``.
        settings: baseline's name to every setting tried for it and its selection score.
    """

    name: str
    root: Path
    parent_id: str
    folder: Path
    parent_tags: Mapping[str, str]
    config: Mapping[str, Any]
    hardware: Mapping[str, Any]
    searched: tuple[str, ...]
    runs: pd.DataFrame
    parameters: pd.DataFrame
    series: pd.DataFrame
    evaluations: pd.DataFrame
    settings: Mapping[str, pd.DataFrame]

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The rows of ``runs`` of one kind, ``point`` or ``baseline``."""
        return [row for row in records(self.runs) if row["kind"] == kind]

    @functools.cached_property
    def evaluation_groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Rows of ``evaluations`` by (run id, set, metric): split once, asked for often."""
        return dict(iter(self.evaluations.groupby(["run_id", "set", "metric"], sort=False)))  # pyright: ignore

    @functools.cached_property
    def series_groups(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Rows of ``series`` by (run id, metric)."""
        return dict(iter(self.series.groupby(["run_id", "metric"], sort=False)))  # pyright: ignore


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as dictionaries by column name."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def sweep_runs(root: Path, sweep: str) -> pd.DataFrame:
    """One row per point and baseline: status, searched parameters typed by value, final metrics.

    Args:
        root: folder that holds ``mlflow.db``.
        sweep: name of the sweep.

    Raises:
        MetalabError: there is no store, or it has no such sweep.
    """
    return load_sweep(root, sweep).runs


def series(root: Path, sweep: str) -> pd.DataFrame:
    """Every metric of every seed at every logged outer step, long; raises as ``sweep_runs``."""
    return load_sweep(root, sweep).series


def evaluations(root: Path, sweep: str) -> pd.DataFrame:
    """Every assessment of every learner raised in an evaluation, long; raises as ``sweep_runs``."""
    return load_sweep(root, sweep).evaluations


def load_sweep(root: Path, sweep: str) -> SweepData:
    """Reads one sweep whole.

    Args:
        root: folder that holds ``mlflow.db``.
        sweep: name of the sweep.

    Raises:
        MetalabError: there is no store, or it has no such sweep.
    """
    client = open_store(root)
    parent, children = _find_runs(client, root, sweep)
    folder = _artifact_folder(root, parent)
    searched = _searched_keys(children)
    labels = {run.info.run_id: _label(run) for run in children}
    kinds = {run.info.run_id: run.data.tags.get(_TAG + "kind", "") for run in children}
    folders = {run.info.run_id: _artifact_folder(root, run) for run in children}
    settings = {
        labels[key]: pd.read_parquet(place / "settings.parquet")
        for key, place in folders.items()
        if (place / "settings.parquet").is_file()
    }
    return SweepData(
        name=sweep,
        root=root,
        parent_id=parent.info.run_id,
        folder=folder,
        parent_tags=dict(parent.data.tags),
        config=_read_mapping(folder / "sweep.yaml"),
        hardware=_read_mapping(folder / "hardware.json"),
        searched=searched,
        runs=_runs_frame(children, labels, searched),
        parameters=pd.DataFrame.from_dict(
            {run.info.run_id: dict(run.data.params) for run in children}, orient="index"
        ),
        series=_gather(folders, labels, kinds, "series.parquet", SERIES_COLUMNS),
        evaluations=_gather(folders, labels, kinds, "evaluation.parquet", EVALUATION_COLUMNS),
        settings=settings,
    )


def open_store(root: Path) -> Any:
    """An ``MlflowClient`` on ``<root>/mlflow.db``.

    Raises:
        MetalabError: there is no store (a client would silently make an empty one).
    """
    database = Path(root) / "mlflow.db"
    if not database.is_file():
        raise MetalabError(
            f"no MLflow store at {database}: run `metalab sweep FILE` first, or name the folder that holds it"
        )
    return client_of(Path(root))


def typed(texts: Sequence[str | None]) -> list[Any]:
    """MLflow's parameter texts as numbers and booleans where all of them are such, else as text."""
    rules = (_as_bool, _as_int, _as_float)
    known = [text for text in texts if text is not None]
    for rule in rules:
        values = [rule(text) for text in known]
        if values and all(value is not None for value in values):
            return [None if text is None else rule(text) for text in texts]
    return list(texts)


def _as_bool(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _as_int(text: str) -> int | None:
    body = text[1:] if text[:1] in "+-" else text
    return int(text) if body.isascii() and body.isdigit() else None


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _find_runs(client: Any, root: Path, sweep: str) -> tuple[Any, list[Any]]:
    """The newest parent run of the sweep, and its children in order: points by number, then baselines."""
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        raise MetalabError(_unknown_sweep(client, root, sweep))
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found += list(page)
        token = page.token
        if not token:
            break
    parents = [run for run in found if run.data.tags.get(_TAG + "kind") == "sweep"]
    if not parents:
        raise MetalabError(
            f"experiment {sweep!r} in {root} has no run of kind `sweep`: nothing was run in it"
        )
    # A point run alone is no sweep: its parent counts only where there is nothing else.
    whole = [run for run in parents if run.data.tags.get(_TAG + "single") != "true"]
    parent = max(whole or parents, key=lambda run: run.info.start_time or 0)
    children = _below(found, {parent.info.run_id})
    # A meta-test may hang below the point that it tested.
    children += _below(found, {run.info.run_id for run in children})
    return parent, sorted(children, key=_order)


def _below(found: Sequence[Any], parents: set[str]) -> list[Any]:
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") in parents]


def _unknown_sweep(client: Any, root: Path, sweep: str) -> str:
    names = [e.name for e in client.search_experiments() if e.name != "Default"]
    return f"no sweep named {sweep!r} in {Path(root) / 'mlflow.db'}: {nearest(sweep, names)}"


def _order(run: Any) -> tuple[int, float, str]:
    tags = run.data.tags
    rank = {"point": 0, "baseline": 1}.get(tags.get(_TAG + "kind", ""), 2)
    number = _as_float(tags.get(_TAG + "number", "")) if rank == 0 else None
    return rank, math.inf if number is None else number, tags.get(_TAG + "name", "")


def _label(run: Any) -> str:
    """How the report calls a run: a baseline by its name, a point by its number."""
    tags = run.data.tags
    if tags.get(_TAG + "kind") == "point":
        return f"point {tags.get(_TAG + 'number', run.info.run_id[:6])}"
    return tags.get(_TAG + "name") or run.info.run_name or run.info.run_id[:6]


def _searched_keys(children: Sequence[Any]) -> tuple[str, ...]:
    """Union of the points' searched keys, in order of first sight (a baseline's own search is apart)."""
    keys: dict[str, None] = {}
    for run in children:
        if run.data.tags.get(_TAG + "kind") == "point":
            keys.update(dict.fromkeys(json.loads(run.data.tags.get(_TAG + "searched", "[]"))))
    return tuple(keys)


def _runs_frame(children: Sequence[Any], labels: Mapping[str, str], searched: Sequence[str]) -> pd.DataFrame:
    rows = []
    for run in children:
        tags, info = run.data.tags, run.info
        ended = info.end_time
        row: dict[str, Any] = {
            "run_id": info.run_id,
            "kind": tags.get(_TAG + "kind", ""),
            "label": labels[info.run_id],
            "name": tags.get(_TAG + "name", ""),
            "number": _as_int(tags.get(_TAG + "number", "")),
            "point": tags.get(_TAG + "point", ""),
            "status": (tags.get(_TAG + "status") or info.status).lower(),
            "diverged": tags.get(_TAG + "diverged", "null"),
            "start_time": pd.Timestamp(info.start_time, unit="ms", tz="UTC"),
            "duration_s": (ended - info.start_time) / 1000 if ended else math.nan,
        }
        row.update({key: run.data.params.get(key) for key in searched})
        rows.append(row | dict(run.data.metrics))
    frame = pd.DataFrame(rows, columns=None if rows else list(RUN_COLUMNS))
    for key in searched:
        points = frame["kind"] == "point"
        values = pd.Series([None] * len(frame), dtype=object)
        values[points] = typed([None if pd.isna(v) else v for v in frame.loc[points, key]])
        frame[key] = values.infer_objects()
    return frame


def _gather(
    folders: Mapping[str, Path],
    labels: Mapping[str, str],
    kinds: Mapping[str, str],
    file: str,
    columns: Sequence[str],
) -> pd.DataFrame:
    """All runs' copies of one Parquet artifact, one below the other."""
    parts = []
    for run_id, folder in folders.items():
        if (folder / file).is_file():
            part = pd.read_parquet(folder / file)
            missing = [c for c in columns if c not in part.columns]
            if missing:
                lacking = ", ".join(missing)
                raise MetalabError(f"{folder / file} of {labels[run_id]} lacks the columns {lacking}")
            parts.append(part.assign(run_id=run_id, label=labels[run_id], kind=kinds[run_id]))
    empty = pd.DataFrame(columns=["run_id", "label", "kind", *columns])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _artifact_folder(root: Path, run: Any) -> Path:
    """Where a run's artifacts lie; below the root, also when the store was copied and notes another place."""
    parsed = urlparse(run.info.artifact_uri)
    noted = Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else Path()
    if noted.is_relative_to(Path(root).resolve()):
        return noted
    below = sorted((Path(root) / "artifacts").glob(f"*/{run.info.run_id}/artifacts"))
    return below[0] if below else noted


def _read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file's mapping, {} where there is no such file."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return (json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)) or {}
