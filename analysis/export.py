"""A sweep as tidy tables in files: its points, its baselines, their series and their evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frames import EVALUATION_COLUMNS, SERIES_COLUMNS, runs_frame, searched_keys
from analysis.store import TAG, StoredSweep, opened_sweep
from metalab.errors import ConfigError

__all__ = ["export_sweep"]


def export_sweep(root: Path, sweep: str, folder: Path, form: str = "parquet") -> list[tuple[Path, int]]:
    """Writes a sweep's tables.

    ``points``: one row a point: number, status, reason, outer steps, objective(s), searched values, the last
    value of every metric with its interval, run id. ``baselines``: the same of baselines, by name.
    ``series``: point, seed, step, metric, value. ``evaluations``: point or baseline, seed, set, task, the
    outer step of the meta-parameters, the learner's age, metric, value.

    Args:
        root: folder of the store.
        sweep: name of the sweep.
        folder: written into, made if it is missing; files of the same names are replaced.
        form: ``parquet`` or ``csv``.

    Returns:
        The files and their numbers of rows.

    Raises:
        MetalabError: there is no such sweep, or the folder cannot be written.
    """
    write = _write_csv if form == "csv" else _write_parquet
    with opened_sweep(root, sweep) as stored:
        tables: dict[str, Iterator[pd.DataFrame]] = {
            "points": iter([_points(stored)]),
            "baselines": iter([_baselines(stored)]),
            "series": _series(stored),
            "evaluations": _evaluations(stored),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = {name: folder / f"{name}.{form}" for name in tables}
            return [(paths[name], write(frames, paths[name])) for name, frames in tables.items()]
        except OSError as error:
            raise ConfigError("--to", f"{folder} cannot be written: {error}") from error


def _points(stored: StoredSweep) -> pd.DataFrame:
    searched = searched_keys(stored.children)
    frame = runs_frame(stored.children, searched)
    frame["steps"] = pd.array([_last_step(stored.folders[key]) for key in frame["run_id"]], "Int64")
    first = ["number", "status", "reason", "steps", *(m for m in _metrics(frame) if _is_objective(m))]
    rest = [metric for metric in _metrics(frame) if not _is_objective(metric)]
    order = [*first, *searched, *rest, "start_time", "duration_s", "run_id"]
    points: Any = frame.loc[frame["kind"] == "point", order]
    return points.astype({"number": "Int64"}).reset_index(drop=True)


def _baselines(stored: StoredSweep) -> pd.DataFrame:
    frame = runs_frame(stored.children, ())
    mine: Any = frame[frame["kind"] == "baseline"]
    metrics = [metric for metric in _metrics(frame) if mine[metric].notna().any()]
    order = ["name", "status", "reason", *metrics, "start_time", "duration_s", "run_id"]
    return mine[order].reset_index(drop=True)


def _series(stored: StoredSweep) -> Iterator[pd.DataFrame]:
    columns = ["point", *SERIES_COLUMNS]
    yield pd.DataFrame(columns=columns)
    for run in stored.children:
        path = stored.folders[run.info.run_id] / "series.parquet"
        if path.is_file():
            yield (
                pd.read_parquet(path)
                .assign(point=int(run.data.tags[TAG + "number"]))
                .reindex(columns=columns)
            )


def _evaluations(stored: StoredSweep) -> Iterator[pd.DataFrame]:
    columns = ["point", "baseline", *EVALUATION_COLUMNS]
    yield pd.DataFrame(columns=columns)
    for run in stored.children:
        path = stored.folders[run.info.run_id] / "evaluation.parquet"
        if not path.is_file():
            continue
        tags = run.data.tags
        is_point = tags.get(TAG + "kind") == "point"
        frame = pd.read_parquet(path)
        frame["point"] = pd.array([int(tags[TAG + "number"]) if is_point else None] * len(frame), "Int64")
        frame["baseline"] = "" if is_point else tags.get(TAG + "name", "")
        yield frame.reindex(columns=columns)


def _write_csv(frames: Iterator[pd.DataFrame], path: Path) -> int:
    """The frames one below the other; a sweep's series are more than memory should hold."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(frames):
            frame.to_csv(file, index=False, header=number == 0)
            count += len(frame)
    return count


def _write_parquet(frames: Iterator[pd.DataFrame], path: Path) -> int:
    """As ``_write_csv``; the columns have the types of the first frame that has rows."""
    import pyarrow as pa
    from pyarrow import parquet

    count, writer = 0, None
    for frame in frames:
        if writer is None and frame.empty:
            frame.to_parquet(path)  # stays if nothing follows
            continue
        table = pa.Table.from_pandas(frame, schema=writer and writer.schema, preserve_index=False)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        count += len(frame)
    if writer is not None:
        writer.close()
    return count


def _last_step(folder: Path) -> int | None:
    """The last outer step that a run has logged; None: it has logged none."""
    path = folder / "series.parquet"
    if not path.is_file():
        return None
    steps: Any = pd.read_parquet(path, columns=["step"])["step"]
    return int(steps.max())


def _metrics(frame: pd.DataFrame) -> list[str]:
    return sorted(str(name) for name in frame.columns if "/" in str(name) or name == "objective")


def _is_objective(metric: str) -> bool:
    return metric.split("/")[0] == "objective"
