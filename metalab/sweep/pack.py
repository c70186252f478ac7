"""Running one pack: chunks of outer steps, selection, checkpoints, and the records of its points.

What a chunk reported is written to MLflow while the devices compute the next chunk, and in any case before
a checkpoint: what a resumed run logs again is what was logged before, to the same timestamps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import yaml

from metalab.checkpoints import Checkpoints
from metalab.devices import pad_lanes
from metalab.progress import Progress
from metalab.protocols import PyTree
from metalab.spec import EvaluationSet, Point, SweepSpec
from metalab.sweep.evaluation import LaneSet, curves_frame, final_score, life_score, score_sets
from metalab.sweep.guard import StopRequest
from metalab.sweep.history import History
from metalab.sweep.probe import probe_frame, probe_set
from metalab.sweep.program import Compiler, OuterProgram
from metalab.sweep.records import (
    digest_of,
    interval_rows,
    over_seeds,
    plain,
    save_meta_params,
    series_frame,
)
from metalab.tracking import Handle, Row, Store

__all__ = ["Context", "PackRun", "pack_folder"]

CHECKPOINT_SECONDS = 15.0  # a checkpoint costs 0.03 to 0.1 s, and the chunks since are computed again


@dataclasses.dataclass
class Context:
    """What all packs of a sweep share.

    Attributes:
        spec: the sweep.
        folder: of the sweep's working files.
        store: its runs.
        compiler: its programs.
        progress: what the user sees.
        stop: whether the user wants it to stop.
        evaluation_sets: the sets as a point has them.
        on_chunk: called with the step after every chunk; for tests.
        checkpoint_seconds: at most this much work is lost to a kill.
        run_s: seconds spent in packs, compilation included.
        width: lanes of the last pack, padding included; 0: none has run.
    """

    spec: SweepSpec
    folder: Path
    store: Store
    compiler: Compiler
    progress: Progress
    stop: StopRequest
    evaluation_sets: Callable[[Point], Mapping[str, EvaluationSet]]
    on_chunk: Callable[[int], None] | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    run_s: float = 0.0
    width: int = 0


def pack_folder(context: Context, points: Sequence[Point]) -> Path:
    """A pack's working files: named by its points in order, seeds, budget and lanes on the devices."""
    spec = context.spec
    width = pad_lanes(len(points) * spec.seeds, context.compiler.mesh.size)
    budget = [spec.budget.outer_steps, spec.budget.chunk]
    digest = digest_of([[point.digest for point in points], spec.seeds, budget, width])
    return context.folder / "packs" / digest


class PackRun:
    """One pack from its first (or next) chunk to its last record.

    Args:
        context: of the sweep.
        points: of one structure.
        runs: their MLflow runs; a point whose run is FINISHED keeps its records as they are.
    """

    def __init__(self, context: Context, points: Sequence[Point], runs: Sequence[Handle]) -> None:
        self._context, self._points, self._runs = context, list(points), list(runs)
        spec = context.spec
        self._program = OuterProgram(context.compiler, [p.outer for p in points], spec.seeds)
        self._sets = self._lane_sets()
        context.width = self._program.width
        self.folder = pack_folder(context, points)
        self._pending: list[tuple[int, dict[str, np.ndarray]]] = []
        self._best: float | None = None

    def run(self) -> None:
        """Trains, evaluates and records the pack's points.

        Raises:
            SweepStopped: a signal came; the state is saved.
        """
        start = time.monotonic()
        checkpoints = Checkpoints(self.folder / "checkpoints")
        try:
            self._train(checkpoints)
        finally:
            self._context.progress.end()
            self._context.run_s += time.monotonic() - start
            checkpoints.close()

    def _train(self, checkpoints: Checkpoints) -> None:
        context, total = self._context, self._context.spec.budget.outer_steps
        step, state, kept = self._restore(checkpoints)
        self._history = History(self.folder / "parts", step)
        title = self._title()
        context.progress.begin(title, self._program.num_lanes, step, total)
        saved_at = time.monotonic()
        while step < total:
            length = min(context.spec.budget.chunk, total - step)
            state, metrics = self._program.chunk(state, step, length)
            self._flush()  # while the devices compute
            before, step = step, step + length
            part = {f"train/{name}": value for name, value in self._program.fetch(metrics).items()}
            if self._due(before, step):
                kept = self._select(kept, state, step, part)
            self._history.add(step, part)
            self._pending.append((step, part))
            self._report(step)
            stopping = context.stop.signum is not None
            if stopping or step == total or time.monotonic() - saved_at >= context.checkpoint_seconds:
                self._flush()
                checkpoints.save(step, (state, kept), self._manifest())
                saved_at = time.monotonic()
            if context.on_chunk is not None:
                context.on_chunk(step)
            context.stop.check()
        self._finish(state, kept)

    def _restore(self, checkpoints: Checkpoints) -> tuple[int, PyTree, dict[str, Any]]:
        step = checkpoints.latest()
        if step is None:
            state = self._program.init()
            return 0, state, self._program.start_keeping(state)
        self._context.progress.say(f"{self._title()}: continues from step {step}")
        state, kept = checkpoints.restore(step, self._program.template(), self._manifest())
        return step, state, kept

    def _manifest(self) -> dict[str, Any]:
        return {"points": [point.digest for point in self._points], "seeds": self._context.spec.seeds}

    def _title(self) -> str:
        numbers = [point.number for point in self._points]
        return f"points {min(numbers)}-{max(numbers)}" if len(numbers) > 1 else f"point {numbers[0]}"

    def _lane_sets(self) -> dict[str, LaneSet]:
        per_point = [self._context.evaluation_sets(point) for point in self._points]
        seeds = self._context.spec.seeds
        return {
            name: LaneSet.of([sets[name] for sets in per_point], seeds, self._program.spread)
            for name in per_point[0]
        }

    def _due(self, before: int, step: int) -> bool:
        settings, total = self._context.spec.evaluation, self._context.spec.budget.outer_steps
        if settings.select is None:
            return False
        return step == total or step // settings.every > before // settings.every

    def _select(
        self, kept: dict[str, Any], state: PyTree, step: int, part: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """Evaluates on the selection set, keeps what is better, and adds the returns to the part."""
        name = self._context.spec.evaluation.select
        assert name is not None
        chosen, program = self._sets[name], self._program
        meta = program.meta_params(state)
        curves = chosen.run(self._context.compiler, meta, program.keys, "selection")
        scores = {
            "return": final_score(curves["return"], chosen.ages),
            "mean_return": life_score(curves["return"], chosen.ages),
        }
        for metric, score in scores.items():
            part[f"evaluation/{name}/{metric}"] = program.fetch(score)[:, None]
        return program.keep_better(kept, meta, scores[self._context.spec.evaluation.keep_by], step)

    def _report(self, step: int) -> None:
        num_diverged = len(self._history.diverged(slice(None)))
        select = self._context.spec.evaluation.select
        returns = self._history.last(f"evaluation/{select}/return")
        if returns is not None and np.isfinite(returns).any():
            found = float(np.nanmax(returns))
            self._best = found if self._best is None else max(found, self._best)
        self._context.progress.step(step, self._program.num_lanes - num_diverged, self._best)

    def _lanes(self, position: int) -> slice:
        seeds = self._context.spec.seeds
        return slice(position * seeds, (position + 1) * seeds)

    def _flush(self) -> None:
        """Logs the chunks that wait: of each metric the mean over the chunk, with its interval over seeds."""
        for position, run in enumerate(self._runs):
            if run.status == "FINISHED" or not self._pending:
                continue
            lanes = self._lanes(position)
            rows: list[Row] = []
            for step, part in self._pending:
                for name, values in part.items():
                    rows += interval_rows(name, step, values[lanes].mean(axis=1))
            self._context.store.log(run, rows)
            if diverged := self._history.diverged(lanes):
                self._context.store.tag(run.run_id, **{"metalab.diverged": diverged})
        self._pending.clear()

    def _finish(self, state: PyTree, kept: dict[str, Any]) -> None:
        """Evaluates the kept meta-parameters on every set and closes the points' runs."""
        program, total = self._program, self._context.spec.budget.outer_steps
        meta, steps = kept["meta"], program.fetch(kept["step"])
        if self._context.spec.evaluation.select is None:
            meta, steps = program.meta_params(state), np.full(program.num_lanes, total)
        curves = {
            name: program.fetch(one.run(self._context.compiler, meta, program.keys, "final"))
            for name, one in self._sets.items()
        }
        self._probes = {
            name: probe_set(one, self._context.compiler, meta, program.keys, program.fetch)
            for name, one in self._sets.items()
            if one.where.probe
        }
        meta = program.fetch(meta)
        for position, (point, run) in enumerate(zip(self._points, self._runs, strict=True)):
            if run.status != "FINISHED":
                self._record(position, point, run, meta, steps, curves)

    def _record(
        self,
        position: int,
        point: Point,
        run: Handle,
        meta: PyTree,
        steps: np.ndarray,
        curves: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        lanes, store = self._lanes(position), self._context.store
        own = _cut(curves, lanes)
        probes = _cut(self._probes, lanes)
        rows, finals = self._final_rows(own, probes)
        series = self._history.series(lanes)
        value = self._objective(series, finals)
        if value is not None:
            rows.append(("objective", self._context.spec.budget.outer_steps, value))
        store.log(run, rows)
        folder = self.folder / "records" / point.digest
        folder.mkdir(parents=True, exist_ok=True)
        series_frame(series).to_parquet(folder / "series.parquet")
        if own:
            frames = [curves_frame(self._sets, own, steps[lanes])]
            frames += [probe_frame(self._sets[name], found, steps[lanes]) for name, found in probes.items()]
            pd.concat(frames, ignore_index=True).to_parquet(folder / "evaluation.parquet")
        kept_at = {"outer_steps": steps[lanes].tolist(), "point": point.digest}
        save_meta_params(folder, _cut(meta, lanes), kept_at)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(point.config), sort_keys=False))
        store.artifact(run.run_id, folder)
        store.tag(run.run_id, **{"metalab.diverged": self._history.diverged(lanes) or None})
        store.close(run.run_id, "FINISHED")

    def _final_rows(
        self, curves: Mapping[str, Mapping[str, np.ndarray]], probes: Mapping[str, Mapping[str, np.ndarray]]
    ) -> tuple[list[Row], dict[str, np.ndarray]]:
        """Rows of the final evaluation, and the values per seed ``[S]`` by metric name."""
        total = self._context.spec.budget.outer_steps
        finals = score_sets(self._sets, curves)
        for name, found in probes.items():
            finals |= {f"final/{name}/{metric}": values for metric, values in found.items()}
        rows: list[Row] = []
        for name in curves:
            if name != self._context.spec.evaluation.select:  # that one's curve already has this step
                rows += interval_rows(f"evaluation/{name}/return", total, finals[f"final/{name}/return"])
        for key, values in finals.items():
            rows += interval_rows(key, total, values)
        return rows, finals

    def _objective(
        self, series: Mapping[str, tuple[np.ndarray, np.ndarray]], finals: Mapping[str, np.ndarray]
    ) -> float | None:
        """The study's number: the objective's last value of each seed, taken over the seeds."""
        study = self._context.spec.study
        if study.objective in series:
            return over_seeds(series[study.objective][1][:, -1], study.over_seeds)
        final = study.objective.replace("evaluation/", "final/", 1)  # a set that is evaluated at the end only
        return over_seeds(finals[final], study.over_seeds) if final in finals else None


def _cut(tree: PyTree, lanes: slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[lanes], tree)
