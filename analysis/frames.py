"""A sweep's MLflow store as pandas frames.

One experiment holds one sweep: a parent run (``metalab.kind = sweep``), one child run a point and one a
baseline. Points that were pruned or diverged have a series and no evaluation; failed ones may have neither.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from analysis.objectives import best_rows, objectives
from analysis.store import TAG, StoredSweep, opened_sweep
from metalab.curation.ratings import EXAMPLE_COLUMNS, EXAMPLES_FILE
from metalab.errors import MetalabError
from metalab.sweep.overview import selection_of

__all__ = [
    "CONSTRAINED",
    "EXPOSED",
    "NLL_SERIES",
    "RATING_SERIES",
    "SweepData",
    "evaluations",
    "load_sweep",
    "records",
    "runs_frame",
    "searched_keys",
    "series",
    "sweep_runs",
    "typed",
]

RUN_COLUMNS = (
    "run_id", "kind", "label", "name", "number", "point", "status", "reason", "diverged", "start_time",
    "duration_s",
)  # fmt: skip
SERIES_COLUMNS = ("seed", "step", "metric", "value")
EVALUATION_COLUMNS = ("seed", "set", "task", "outer_step", "update", "env_steps", "metric", "value")
EXPOSED = "train/inner/meta/"  # before the names of exposed hyperparameters, among the series
RATING_SERIES = "train/inner/rank_correlation"  # of ratings and cleanness, in training batches
# Of the source's actions in training crops: the section on distillation.
NLL_SERIES = {
    "first 20 steps of a crop": "train/inner/nll_first",
    "last 20 steps": "train/inner/nll_last",
    "all steps": "train/loss",
}
# What the section on soft constraints reads of a life's series, by its own names.
CONSTRAINED = {
    "score": "train/score",
    "return": "train/inner/unpenalized_return",
    "overshoot": "train/inner/overshoot",
    "cost": "train/inner/cost",
    "peak": "train/inner/multiplier_peak",
    "multiplier": "train/inner/multiplier",
    "rate": "train/inner/multiplier_rate",
}
_Filter = list[list[tuple[str, str, Any]]]  # as pyarrow takes them: any of them, each all of its conditions
_PROGRESS = ("sweep/objective", "sweep/best", "sweep/ended")


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: frames do not compare to one bool
class SweepData:
    """All that a report needs of one sweep.

    Attributes:
        name: of the sweep.
        root: folder of the store.
        parent_id: MLflow id of the sweep's own run.
        folder: of that run's artifacts; None: they are on a server.
        parent_tags: its tags.
        config: the resolved sweep file; {} if it was not kept.
        hardware: what the engine noted of machine, versions and time; {} if it was not kept.
        searched: dotted keys of the search space.
        runs: one row a point or baseline: ``RUN_COLUMNS``, searched keys typed by value, metrics.
        parameters: all parameters as text, one row a run (index: run id).
        series: long: ``run_id, label, seed, step, metric, value``.
        evaluations: long: ``run_id, label, kind`` and ``EVALUATION_COLUMNS``.
        settings: baseline's name to every setting tried for it and its selection score.
        progress: of the sweep as it ran: ``metric, step, value``; see ``_PROGRESS``.
        examples: the best and worst rated texts that ``metalab rate`` found, one row a text; may be empty.
        superseded: runs of points that were run again, left aside.
    """

    name: str
    root: Path
    parent_id: str
    folder: Path | None
    parent_tags: Mapping[str, str]
    config: Mapping[str, Any]
    hardware: Mapping[str, Any]
    searched: tuple[str, ...]
    runs: pd.DataFrame
    parameters: pd.DataFrame
    series: pd.DataFrame
    evaluations: pd.DataFrame
    settings: Mapping[str, pd.DataFrame]
    progress: pd.DataFrame
    examples: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    superseded: int = 0

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The rows of ``runs`` of one kind, ``point`` or ``baseline``."""
        return [row for row in self.run_rows if row["kind"] == kind]

    @functools.cached_property
    def run_rows(self) -> list[dict[str, Any]]:
        """The rows of ``runs``: made once, asked for often."""
        return records(self.runs)

    @functools.cached_property
    def evaluation_groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Rows of ``evaluations`` by (run id, set, metric): split once, asked for often."""
        return dict(iter(self.evaluations.groupby(["run_id", "set", "metric"], sort=False)))  # pyright: ignore

    @functools.cached_property
    def series_groups(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Rows of ``series`` by (run id, metric)."""
        return dict(iter(self.series.groupby(["run_id", "metric"], sort=False)))  # pyright: ignore

    def curve(self, run_id: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Steps [U] and values [S, U] of one series, NaN where a seed has none; None: it was not kept."""
        rows = self.series_groups.get((run_id, metric))
        if rows is None:
            return None
        seeds, row = np.unique(rows["seed"].to_numpy(), return_inverse=True)
        steps, column = np.unique(rows["step"].to_numpy(), return_inverse=True)
        values = np.full((len(seeds), len(steps)), np.nan)
        values[row, column] = rows["value"].to_numpy(np.float64)
        return steps, values


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


def load_sweep(root: Path, sweep: str, *, drawn_only: bool = False) -> SweepData:
    """Reads one sweep whole.

    Args:
        root: folder of the store.
        sweep: name of the sweep.
        drawn_only: only the series and evaluations that the report draws: of a large sweep, the others are
            more than memory should hold.

    Raises:
        MetalabError: there is no store, or it has no such sweep.
    """
    with opened_sweep(root, sweep) as stored:
        own = stored.folders[stored.parent.info.run_id]
        config = _read_mapping(own / "sweep.yaml")
        searched = searched_keys(stored.children)
        runs = runs_frame(stored.children, searched, listed=isinstance(config.get("search"), list))
        drawn = _drawn(config, records(runs)) if drawn_only else _everything(runs)
        settings = {
            run["label"]: pd.read_parquet(stored.folders[run["run_id"]] / "settings.parquet")
            for run in records(runs)
            if (stored.folders[run["run_id"]] / "settings.parquet").is_file()
        }
        return SweepData(
            name=sweep,
            root=stored.root,
            parent_id=stored.parent.info.run_id,
            folder=stored.folder,
            parent_tags=dict(stored.parent.data.tags),
            config=config,
            hardware=_read_mapping(own / "hardware.json"),
            searched=searched,
            runs=runs,
            parameters=pd.DataFrame.from_dict(
                {run.info.run_id: dict(run.data.params) for run in stored.children}, orient="index"
            ),
            series=_gather(stored, runs, "series.parquet", SERIES_COLUMNS, drawn.series),
            evaluations=_gather(stored, runs, "evaluation.parquet", EVALUATION_COLUMNS, drawn.evaluations),
            settings=settings,
            progress=_progress(stored),
            examples=_gather(stored, runs, EXAMPLES_FILE, EXAMPLE_COLUMNS, dict.fromkeys(runs["run_id"])),
            superseded=stored.superseded,
        )


class _Wanted(NamedTuple):
    """Which rows of which runs are read: run id to a Parquet filter; None: all of them."""

    series: Mapping[str, _Filter | None]
    evaluations: Mapping[str, _Filter | None]


def _everything(runs: pd.DataFrame) -> _Wanted:
    whole = dict.fromkeys(runs["run_id"])
    return _Wanted(whole, whole)


def _drawn(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> _Wanted:
    """Of series the metrics that are drawn; of evaluations the best point's and the baselines'.

    A report on distillation compares all points.

    Of the other points those sets that an objective is taken from, which has no series there.
    """
    select, names = selection_of(config), [one.name for one in objectives(config)]
    selection = f"evaluation/{select}/return"
    metrics = ["train/score", selection, RATING_SERIES, *names]
    metrics += CONSTRAINED.values() if "soft_constraints" in (config.get("report") or ()) else ()
    distilled = "distillation" in (config.get("report") or ())
    metrics += NLL_SERIES.values() if distilled else ()
    sets = [name.split("/")[1] for name in names if not name.startswith("train/") and name != selection]
    points = [row for row in rows if row["kind"] == "point"]
    best = {row["run_id"] for row in best_rows(config, points)[:1]}
    evaluations: dict[str, _Filter | None] = {}
    for row in rows:
        if row["kind"] != "point" or row["run_id"] in best or distilled:
            evaluations[row["run_id"]] = None
        elif sets:
            evaluations[row["run_id"]] = [[("set", "in", sets)]]
    exposed = [("metric", ">=", EXPOSED), ("metric", "<", EXPOSED + "~")]  # ~ comes after all letters
    series: _Filter = [[("metric", "in", metrics)], exposed]
    return _Wanted({row["run_id"]: series for row in points}, evaluations)


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


def label_of(run: Any) -> str:
    """How the report calls a run: a baseline by its name, a point by its number."""
    tags = run.data.tags
    if tags.get(TAG + "kind") == "point":
        return f"point {tags.get(TAG + 'number', run.info.run_id[:6])}"
    return tags.get(TAG + "name") or run.info.run_name or run.info.run_id[:6]


def searched_keys(children: Sequence[Any]) -> tuple[str, ...]:
    """Union of the points' searched keys, in order of first sight (a baseline's own search is apart)."""
    keys: dict[str, None] = {}
    for run in children:
        keys.update(dict.fromkeys(_searched(run)))
    return tuple(keys)


def runs_frame(children: Sequence[Any], searched: Sequence[str], listed: bool = False) -> pd.DataFrame:
    """One row a run: ``RUN_COLUMNS``, the searched keys, all metrics.

    Args:
        children: runs.
        searched: keys.
        listed: the file lists its points: a key that a point leaves out has the file's value there. Else it
            has none, for the condition under which it is searched did not hold.
    """
    rows = []
    for run in children:
        own = searched if listed else _searched(run)
        values = {key: _param(run, key) if key in own else None for key in searched}
        rows.append(_row(run) | values | dict(run.data.metrics))
    frame = pd.DataFrame(rows, columns=None if rows else list(RUN_COLUMNS))
    for key in searched:
        points = frame["kind"] == "point"
        values = pd.Series([None] * len(frame), dtype=object)
        values[points] = typed([None if pd.isna(v) else v for v in frame.loc[points, key]])
        frame[key] = values.infer_objects()
    return frame


def _row(run: Any) -> dict[str, Any]:
    tags, info = run.data.tags, run.info
    return {
        "run_id": info.run_id,
        "kind": tags.get(TAG + "kind", ""),
        "label": label_of(run),
        "name": tags.get(TAG + "name", ""),
        "number": _as_int(tags.get(TAG + "number", "")),
        "point": tags.get(TAG + "point", ""),
        "status": (tags.get(TAG + "status") or info.status).lower(),
        "reason": tags.get(TAG + "error", ""),
        "diverged": tags.get(TAG + "diverged", "null"),
        "start_time": pd.Timestamp(info.start_time, unit="ms", tz="UTC"),
        "duration_s": (info.end_time - info.start_time) / 1000 if info.end_time else math.nan,
    }


def _searched(run: Any) -> list[str]:
    """A point's own searched keys; a baseline has none."""
    tags = run.data.tags
    return json.loads(tags.get(TAG + "searched", "[]")) if tags.get(TAG + "kind") == "point" else []


def _param(run: Any, key: str) -> str | None:
    """A parameter as text; of a whole component, whose fields are parameters of their own, its kind."""
    params = run.data.params
    return params.get(key, params.get(f"{key}.kind"))


def _progress(stored: StoredSweep) -> pd.DataFrame:
    """The curves of the sweep's own run; of a step that was logged twice (a point ran again) the later."""
    rows = []
    for metric in _PROGRESS:
        known = stored.client.get_metric_history(stored.parent.info.run_id, metric)
        last = {one.step: one.value for one in known}
        rows += [(metric, step, last[step]) for step in sorted(last)]
    return pd.DataFrame(rows, columns=["metric", "step", "value"])


def _gather(
    stored: StoredSweep,
    runs: pd.DataFrame,
    file: str,
    columns: Sequence[str],
    wanted: Mapping[str, _Filter | None],
) -> pd.DataFrame:
    """The runs' copies of one Parquet artifact, one below the other."""
    parts = []
    for run in records(runs):
        path = stored.folders[run["run_id"]] / file
        if run["run_id"] in wanted and path.is_file():
            part = pd.read_parquet(path, filters=wanted[run["run_id"]])
            missing = [c for c in columns if c not in part.columns]
            if missing:
                raise MetalabError(f"{path} of {run['label']} lacks the columns {', '.join(missing)}")
            parts.append(part.assign(**{key: run[key] for key in ("run_id", "label", "kind")}))
    empty = pd.DataFrame(columns=["run_id", "label", "kind", *columns])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file's mapping, {} where there is no such file."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return (json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)) or {}
