"""A small store in the layout that the engine writes, with numbers that can be computed by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from metalab.tracking import Store

RATE = "outer.optimizer.learning_rate"
SEEDS, TASKS, ASSESSMENTS, STRIDE = 3, 4, 9, 320
LAST_STEP = 40
Returns = np.ndarray  # [S, P, U]


def rising(level: float, *, slope: float = 1.0, seeds: int = SEEDS) -> Returns:
    """[S, TASKS, ASSESSMENTS] that reach ``level`` + 0.01 x seed + 0.02 x task at mid-life and stay there."""
    at = np.minimum(np.linspace(0.0, 2.0 * slope, ASSESSMENTS), 1.0)
    offset = 0.01 * np.arange(seeds)[:, None, None] + 0.02 * np.arange(TASKS)[None, :, None]
    return (level + offset) * at


def constant(level: float, seeds: int = SEEDS) -> Returns:
    """[S, TASKS, 1] of a method that does not learn: one assessment, at birth."""
    return np.full((seeds, TASKS, 1), level) + 0.02 * np.arange(TASKS)[None, :, None]


def evaluation_frame(sets: Mapping[str, Returns]) -> pd.DataFrame:
    frames = []
    for name, returns in sets.items():
        seed, task, update = (part.reshape(-1) for part in np.indices(returns.shape))
        columns = {"seed": seed, "set": name, "task": task, "outer_step": LAST_STEP - 10 * (seed == 1)}
        columns |= {"update": update, "env_steps": update * STRIDE, "metric": "return"}
        frames.append(pd.DataFrame(columns | {"value": returns.reshape(-1)}))
    return pd.concat(frames, ignore_index=True)


def series_frame(scores: np.ndarray, selection: np.ndarray) -> pd.DataFrame:
    """Training scores [S, LAST_STEP], a step a column, and selection returns, ten steps a column."""
    frames = []
    for metric, values, every in (("train/score", scores, 1), ("evaluation/train/return", selection, 10)):
        seed, column = (part.reshape(-1) for part in np.indices(values.shape))
        columns = {"seed": seed, "step": (column + 1) * every, "metric": metric}
        frames.append(pd.DataFrame(columns | {"value": values.reshape(-1)}))
    return pd.concat(frames, ignore_index=True)


def sweep_config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "demo",
        "description": "Does a learned rule beat a tuned one?\nOn chains it has not seen.",
        "inner": {"kind": "actor_critic", "rule": {"kind": "lpg"}},
        "budget": {"outer_steps": LAST_STEP, "chunk": 10},
        "seeds": SEEDS,
        "search": {"outer.optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))"},
        "study": {"sampler": "grid", "objective": "evaluation/train/return", "over_seeds": "iqm"},
        "evaluation": {
            "select": "train",
            "sets": {
                "train": {"count": 4, "updates": 8, "threshold": 0.9},
                "held_out": {"count": 4, "updates": 8, "seed": 1, "threshold": 0.9},
                "longer": {"count": 4, "updates": 8, "seed": 2},
            },
        },
        "report": ["learning_curves", "held_out", "hyperparameters", "cost"],
    } | changes


HARDWARE = {
    "git": {"commit": "0123abcd", "changed": True},
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "processor": "A processor",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "backend": "cpu",
    "device_kind": "cpu",
    "devices": 2,
    "trace_s": 3.0,
    "compile_s": 12.5,
    "run_s": 60.0,
    "needed_steps": 300.0,
    "device_steps": 400.0,
    "shrinks": 1.0,
    "commits": 5.0,
    "programs": 1,
    "compilations": [{"name": "chunk"}, {"name": "evaluate"}],
    "endings": [
        {"who": "point 3", "status": "failed", "step": 0, "reason": "MemoryError: no memory"},
        {"who": "point 4", "status": "pruned", "step": 20, "reason": "by median at step 20"},
    ],
    "changes": [{"time": 1_700_000_000.0, "changes": ["seeds 2 -> 3", "code 01 -> 02 (sources)"]}],
}


class Writer:
    """Writes runs as the engine does."""

    def __init__(self, root: Path, config: Mapping[str, Any]) -> None:
        self.root, self.config = root, config
        self.store = Store(root, config["name"])
        tags = {"metalab.sweep": config["name"]}
        self.parent = self.store.open("sweep", "parent", config["name"], tags=tags)
        self.artifact(self.parent.run_id, "sweep.yaml", yaml.safe_dump(dict(config)))
        self.store.close(self.parent.run_id, "FINISHED")

    def artifact(self, run_id: str, name: str, text: str) -> None:
        path = self.root / "scratch" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.store.artifact(run_id, path)

    def point(
        self,
        number: int,
        values: Mapping[str, Any],
        sets: Mapping[str, Returns],
        selection: float,
        status: str = "FINISHED",
        *,
        diverged: Mapping[int, int] | None = None,
        objective: Sequence[float] | float | None = None,
        steps: int = LAST_STEP,
        reason: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """A point whose score rises to ``selection``; its objective is that, unless it is given.

        What is FAILED could not be begun: it has its searched values alone.
        """
        tags = {
            "metalab.number": number,
            "metalab.name": f"point {number}",
            "metalab.searched": sorted(values),
            "metalab.diverged": diverged,
        }
        params = (
            ({} if status == "FAILED" else {"inner.kind": "actor_critic"}) | dict(values) | dict(config or {})
        )
        run_id = self._open("point", f"p{number}", tags, params)
        if status != "FAILED":
            scores = np.linspace(0.0, selection, LAST_STEP) + 0.02 * np.arange(SEEDS)[:, None]
            picked = np.linspace(0.2, selection, LAST_STEP // 10) + 0.01 * np.arange(-1, 2)[:, None]
            for seed, step in (diverged or {}).items():
                scores[seed, step - 1 :] = np.nan
                picked[seed, step // 10 :] = np.nan
            self.frame(run_id, "series.parquet", series_frame(scores[:, :steps], picked[:, : steps // 10]))
        if status in ("FINISHED", "PRUNED"):
            reached = selection if objective is None else objective
            logged = list(reached) if isinstance(reached, Sequence) else [float(reached)]
            names = ["objective"] if len(logged) == 1 else [f"objective/{i}" for i in range(len(logged))]
            self.log(run_id, [(name, steps, value) for name, value in zip(names, logged, strict=True)])
        self._finish(run_id, sets, status, reason)
        return run_id

    def baseline(
        self,
        name: str,
        sets: Mapping[str, Returns],
        settings: pd.DataFrame | None = None,
        metrics: Sequence[tuple[str, int, float]] = (),
    ) -> str:
        run_id = self._open("baseline", f"b{abs(hash(name))}", {"metalab.name": name}, {})
        if settings is not None:
            self.frame(run_id, "settings.parquet", settings)
        self.log(run_id, metrics)
        self._finish(run_id, sets, "FINISHED")
        return run_id

    def log(self, run_id: str, rows: Sequence[tuple[str, int, float]]) -> None:
        from mlflow.entities import Metric

        self.store.client.log_batch(
            run_id, metrics=[Metric(key, value, 0, step) for key, step, value in rows]
        )

    def _open(self, kind: str, digest: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        named = {"metalab.sweep": self.config["name"], **tags}
        run = self.store.open(kind, digest, digest, parent=self.parent.run_id, tags=named, params=params)
        return run.run_id

    def frame(self, run_id: str, name: str, frame: pd.DataFrame) -> None:
        path = self.root / "scratch" / name
        path.parent.mkdir(exist_ok=True)
        frame.to_parquet(path)
        self.store.artifact(run_id, path)

    def _finish(self, run_id: str, sets: Mapping[str, Returns], status: str, reason: str = "") -> None:
        if sets:
            self.frame(run_id, "evaluation.parquet", evaluation_frame(sets))
        known = {"PRUNED": "FINISHED", "DIVERGED": "FAILED"}.get(status, status)
        self.store.close(run_id, "KILLED" if status == "SUPERSEDED" else known)
        said = {"metalab.error": reason} if reason else {}
        self.store.tag(run_id, **{"metalab.status": status, **said})


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database: migrating costs two seconds, copying nothing."""
    from metalab.tracking import client_of

    root = tmp_path_factory.mktemp("template")
    client_of(root).search_experiments()
    return root / "mlflow.db"


@pytest.fixture(scope="session")
def new_store(template: Path) -> Callable[..., Writer]:
    """``new_store(root, **changes of the sweep file)`` makes a store with an empty sweep."""

    def make(root: Path, **changes: Any) -> Writer:
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, root / "mlflow.db")
        return Writer(root, sweep_config(**changes))

    return make


@pytest.fixture(scope="session")
def demo(new_store: Callable[..., Writer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a whole sweep: points of every ending, one with a seed that broke down, all baselines."""
    root = tmp_path_factory.mktemp("demo")
    writer = new_store(root)
    writer.artifact(writer.parent.run_id, "hardware.json", json.dumps(HARDWARE))
    for number, (rate, level) in enumerate([(1e-4, 0.6), (1e-3, 0.95), (1e-2, 0.8)]):
        sets = {
            "train": rising(level),
            "held_out": rising(level, slope=2.0 * level),
            "longer": rising(level - 0.1),
        }
        # A seed that broke down counts as the worst, minus infinity, which the store holds as NaN.
        broken: dict[str, Any] = {"diverged": {2: 25}, "objective": np.nan} if number == 2 else {}
        writer.point(number, {RATE: rate}, sets, level, **broken)
    writer.point(3, {RATE: 0.1}, {}, 0.1, "FAILED", reason="MemoryError: no memory")
    writer.point(4, {RATE: 0.05}, {}, 0.7, "PRUNED", steps=20, objective=0.45, reason="by median at step 20")
    lost, why = {0: 8, 1: 12, 2: 12}, "not finite in every seed by step 12"
    writer.point(5, {RATE: 0.5}, {}, 0.7, "DIVERGED", steps=20, diverged=lost, reason=why)
    best = [(3, 0.6), (4, 0.95)]
    writer.log(writer.parent.run_id, [("sweep/objective", n, v) for n, v in ((0, 0.6), (1, 0.95), (4, 0.45))])
    writer.log(writer.parent.run_id, [("sweep/best", ended, value) for ended, value in best])
    settings = pd.DataFrame({"learning_rate": [10.0, 40.0, 160.0], "score": [0.3, 0.9, 0.5]})
    a2c = rising(0.8, slope=0.75)
    writer.baseline("a2c", {"train": a2c, "held_out": a2c, "longer": rising(0.4)}, settings)
    for name, level in (("random", 0.1), ("optimal", 1.1)):
        writer.baseline(name, {key: constant(level) for key in ("train", "held_out", "longer")})
    writer.baseline("untrained", {key: rising(0.3) for key in ("train", "held_out", "longer")})
    writer.baseline("floor", {}, metrics=[("final/held_out/steps_to_threshold", LAST_STEP, 640.0)])
    return root
