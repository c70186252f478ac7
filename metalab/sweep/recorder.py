"""The recorder: what the store gets of every point, handed to the outbox and never waited for.

Curves in the store are thinned to a few hundred points of few metrics; the full series of every seed go into
the point's ``series.parquet``.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from metalab.outbox import Outbox
from metalab.protocols import PyTree
from metalab.spec import Point, SweepSpec
from metalab.sweep.evaluation import LaneSet, curves_frame, score_sets
from metalab.sweep.history import Series
from metalab.sweep.probe import probe_frame
from metalab.sweep.records import digest_of, interval_rows, plain, save_meta_params, series_frame
from metalab.tracking import Row, flatten

__all__ = ["Final", "Recorder"]

CURVE_POINTS = 200  # of one metric of one run in the store

_MLFLOW_STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}


@dataclasses.dataclass(frozen=True)
class Final:
    """What the final evaluation of one point found.

    Attributes:
        sets: by name, as the point met them.
        curves: by set name, then metric: ``[S, count, points]``.
        probes: by set name, then metric: ``[S]``.
        meta: the meta-parameters that were evaluated, leaves ``[S, ...]``.
        steps: [S] outer steps at which they were kept.
    """

    sets: Mapping[str, LaneSet]
    curves: Mapping[str, Mapping[str, np.ndarray]]
    probes: Mapping[str, Mapping[str, np.ndarray]]
    meta: PyTree
    steps: np.ndarray

    def scores(self) -> dict[str, np.ndarray]:
        """``final/SET/METRIC`` to values ``[S]``."""
        found = score_sets(self.sets, self.curves)
        for name, probed in self.probes.items():
            found |= {f"final/{name}/{metric}": values for metric, values in probed.items()}
        return found


class Recorder:
    """Writes the runs of a sweep.

    Args:
        spec: the sweep.
        folder: where files wait until they are delivered.
        outbox: takes everything.
        parent: digest of the sweep's run.
        attempt_of: what tells a run of a point from its other runs, by the point's number.
    """

    def __init__(
        self, spec: SweepSpec, folder: Path, outbox: Outbox, parent: str, attempt_of: Callable[[int], int]
    ) -> None:
        self._spec, self._folder, self._outbox, self._parent = spec, folder, outbox, parent
        self._attempt_of = attempt_of
        chunks = spec.budget.outer_steps // spec.budget.chunk
        self._stride = spec.budget.chunk * max(1, math.ceil(chunks / CURVE_POINTS))

    def run_of(self, number: int) -> str:
        """The digest that the newest run of a point is found by."""
        return digest_of([self._parent, self._attempt_of(number)])

    def supersede(self, number: int) -> None:
        """A point's run counts no more: the point is about to be run again, in a new one."""
        run = self.run_of(number)
        self._outbox.close(run, "KILLED")
        self._outbox.tag(run, **{"metalab.status": "SUPERSEDED"})

    def open(self, point: Point) -> str:
        """Opens (or opens again) a point's run and returns its digest."""
        tags = {
            "metalab.sweep": self._spec.name,
            "metalab.number": point.number,
            "metalab.name": f"point {point.number}",
            "metalab.searched": sorted(point.values),
        }
        run = self.run_of(point.number)
        self._outbox.open(
            run,
            "point",
            f"{self._spec.name}-{point.number:04d}",
            parent=self._parent,
            tags=tags,
            params=flatten(_own(point)),
            start_ms=int(time.time() * 1000),
        )
        return run

    def chunk(
        self, run: str, step: int, rows: Mapping[str, np.ndarray], new_divergence: Mapping[int, int]
    ) -> None:
        """Logs what a chunk reported, metric to ``[S, length]``: means, thinned for training metrics."""
        last = step == self._spec.budget.outer_steps
        logged: list[Row] = []
        for name, values in rows.items():
            if not name.startswith("train/"):
                logged += interval_rows(name, step, values.mean(axis=1))
            elif step % self._stride == 0 or last:
                logged.append((name, step, float(values.mean())))
        if logged:
            self._outbox.log(run, logged)
        if new_divergence:
            self._outbox.tag(run, **{"metalab.diverged": dict(new_divergence)})

    def end(
        self,
        point: Point,
        run: str,
        status: str,
        series: Series,
        objective: Sequence[float] | None,
        *,
        step: int,
        final: Final | None = None,
        reason: str = "",
    ) -> None:
        """Writes a point's files, its final metrics, and closes its run.

        Args:
            point: the point.
            run: its digest.
            status: ``finished``, ``pruned``, ``diverged`` or ``failed``.
            series: of its life.
            objective: its value(s); None: it has none.
            step: outer steps done.
            final: of a point that finished.
            reason: why it did not.
        """
        rows: list[Row] = []
        folder = self._folder / "records" / run
        folder.mkdir(parents=True, exist_ok=True)
        if final is not None:
            rows += self._final(final, folder, point)
        rows += objective_rows(objective, step)
        series_frame(series.whole()).to_parquet(folder / "series.parquet")
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(_own(point)), sort_keys=False))
        if rows:
            self._outbox.log(run, rows)
        self._outbox.artifact(run, folder, remove=True)
        self._outbox.close(run, _MLFLOW_STATUS[status])
        # MLflow knows neither pruned nor diverged: the tag does.
        said = {"metalab.error": reason} if reason else {}
        self._outbox.tag(run, **{"metalab.status": status.upper(), **said})

    def fail(self, number: int, values: Mapping[str, Any], reason: str, text: str = "") -> None:
        """A point that could not be begun: a run of its own that says why."""
        run = self.run_of(number)
        tags = {
            "metalab.sweep": self._spec.name,
            "metalab.number": number,
            "metalab.name": f"point {number}",
            "metalab.searched": sorted(values),
        }
        name = f"{self._spec.name}-{number:04d}"
        self._outbox.open(run, "point", name, parent=self._parent, tags=tags, params=flatten(values))
        if text:
            path = self._folder / "records" / run / "error.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            self._outbox.artifact(run, path.parent, remove=True)
        self._outbox.close(run, "FAILED")
        self._outbox.tag(run, **{"metalab.status": "FAILED", "metalab.error": reason})

    def progress(self, ended: int, number: int, objective: float | None, best: float | None) -> None:
        """The sweep's own curves: every point's objective by its number, the best by points ended."""
        rows: list[Row] = []
        if objective is not None and math.isfinite(objective):
            rows.append(("sweep/objective", number, objective))
        if best is not None and math.isfinite(best):
            rows.append(("sweep/best", ended, best))
        self._outbox.log(self._parent, [*rows, ("sweep/ended", ended, float(ended))])

    def _final(self, final: Final, folder: Path, point: Point) -> list[Row]:
        total, select = self._spec.budget.outer_steps, self._spec.evaluation.select
        scores = final.scores()
        rows: list[Row] = []
        for name in final.curves:
            if name != select:  # that one's curve already has this step
                rows += interval_rows(f"evaluation/{name}/return", total, scores[f"final/{name}/return"])
        for key, values in scores.items():
            rows += interval_rows(key, total, values)
        if final.curves:
            frames = [curves_frame(final.sets, final.curves, final.steps)]
            frames += [
                probe_frame(final.sets[name], found, final.steps) for name, found in final.probes.items()
            ]
            pd.concat(frames, ignore_index=True).to_parquet(folder / "evaluation.parquet")
        save_meta_params(folder, final.meta, {"outer_steps": final.steps.tolist(), "point": point.digest})
        return rows


def _own(point: Point) -> dict[str, Any]:
    """A point's configuration without what is the sweep's: a long list of points would be in every run."""
    return {key: value for key, value in point.config.items() if key not in ("search", "smoke")}


def objective_rows(objective: Sequence[float] | None, step: int) -> list[Row]:
    """``objective`` of a run, or ``objective/0``, ``objective/1``... of several."""
    if objective is None:
        return []
    if len(objective) == 1:
        return [("objective", step, float(objective[0]))]
    return [(f"objective/{index}", step, float(value)) for index, value in enumerate(objective)]
