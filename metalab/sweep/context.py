"""What the parts of a running sweep share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metalab.outbox import Outbox
from metalab.progress import Progress
from metalab.spec import Baseline, EvaluationSet, Point, SweepSpec
from metalab.sweep.guard import StopRequest
from metalab.sweep.ledger import Manifest
from metalab.sweep.program import Compiler
from metalab.sweep.study import Study

__all__ = ["Context", "Options"]

# The chunks since the last commit are computed again after a kill; commits should cost next to nothing.
_BETWEEN_COMMITS = (15.0, 120.0)  # seconds, at least and at most
_COMMIT_SHARE = 0.01  # of the time


@dataclasses.dataclass(frozen=True)
class Options:
    """How a sweep is run; ``max_lanes`` and ``shrink`` change results in their last bits, the others in none.

    Attributes:
        single: one point, the search space left aside; no baselines.
        fresh: throw away what an earlier call has left of this sweep and start anew.
        accept_changes: go on although code or configuration have changed since, and record it.
        retry: run the points again that failed or diverged.
        max_lanes: points at once at most; None: as many as fit.
        progress: True, False, or None for a bar on a terminal and lines elsewhere.
        quick: spend less on compiling, for a sweep of a few steps.
        checkpoint_seconds: longest time between two commits; None: 15 s, up to 120 s where commits would
            take more than a hundredth of the time.
        shrink: leave empty berths behind: ``never``, ``auto`` (if it pays for its compilation), ``always``.
        overlap: compile the next program while one runs; None: where the devices leave cores idle.
        on_chunk: called after every chunk with the number of chunks of this call; for tests.
    """

    single: bool = False
    fresh: bool = False
    accept_changes: bool = False
    retry: bool = False
    max_lanes: int | None = None
    progress: bool | None = None
    quick: bool = False
    checkpoint_seconds: float | None = None
    shrink: str = "auto"
    overlap: bool | None = None
    on_chunk: Callable[[int], None] | None = None

    def commit_interval(self, took: float) -> float:
        """Seconds until the next commit after one that took ``took`` seconds."""
        if self.checkpoint_seconds is not None:
            return self.checkpoint_seconds
        least, most = _BETWEEN_COMMITS
        return min(max(least, took / _COMMIT_SHARE), most)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the parts of a running sweep share.

    Attributes:
        spec: the sweep.
        folder: of its working files.
        manifest: what it is.
        study: where its points come from and what became of them.
        outbox: of its records.
        compiler: of its programs.
        progress: what the user sees.
        stop: whether the user wants it to stop.
        make_point: a point by its number and values.
        evaluation_sets: a point's evaluation sets.
        baseline_sets: those with a baseline's learner at one setting.
        options: how it is run.
    """

    spec: SweepSpec
    folder: Path
    manifest: Manifest
    study: Study
    outbox: Outbox
    compiler: Compiler
    progress: Progress
    stop: StopRequest
    make_point: Callable[[int, Mapping[str, Any]], Point]
    evaluation_sets: Callable[[Point], Mapping[str, EvaluationSet]]
    baseline_sets: Callable[[Baseline, Mapping[str, Any]], Mapping[str, EvaluationSet]]
    options: Options
