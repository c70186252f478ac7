"""The engine: takes a sweep from its file to finished MLflow runs, and goes on where it was stopped.

Points come from the study in batches; a batch is planned into packs of one structure each; packs run one
after the other, all of a machine's devices at work on each.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from metalab import provenance
from metalab.errors import MetalabError, cause_of
from metalab.progress import Progress
from metalab.spec import Baseline, EvaluationSet, Point, SweepSpec
from metalab.sweep.baselines import run_baselines
from metalab.sweep.guard import StopRequest, SweepStopped, sweep_lock
from metalab.sweep.pack import CHECKPOINT_SECONDS, Context, PackRun, pack_folder
from metalab.sweep.plan import split
from metalab.sweep.program import Compiler
from metalab.sweep.records import digest_of, plain
from metalab.sweep.study import make_study
from metalab.tracking import Handle, Store, flatten, safe_name
from metalab.trees import group_by_structure

__all__ = ["Builders", "SweepResult", "run_sweep"]

# What a file may change without asking another question: points found before stay part of the sweep.
_EXTENDS = ("search", "study", "report", "description", "baselines", "smoke")


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """How a sweep ended.

    Attributes:
        parent_run_id: MLflow's id of the sweep's run.
        finished, failed: numbers of points, those of earlier calls included.
        folder: the sweep's working files.
        compilations: XLA compilations by function name, of this call.
    """

    parent_run_id: str
    finished: int
    failed: int
    folder: Path
    compilations: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Builders:
    """How the engine turns configuration into components: the only seam to ``metalab.config``."""

    make_point: Callable[[SweepSpec, int, Mapping[str, Any]], Point]
    evaluation_sets: Callable[[SweepSpec, Point], Mapping[str, EvaluationSet]]
    baseline_sets: Callable[[SweepSpec, Baseline, Mapping[str, Any]], Mapping[str, EvaluationSet]]

    @classmethod
    def from_config(cls) -> Builders:
        """Those of ``metalab.config``."""
        from metalab import config

        return cls(config.make_point, config.build_evaluation_sets, config.build_baseline_sets)


def run_sweep(
    spec: SweepSpec,
    root: Path,
    *,
    single: bool = False,
    resume: bool = True,
    max_lanes: int | None = None,
    progress: bool | None = None,
    builders: Builders | None = None,
    on_chunk: Callable[[int], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    quick: bool = False,
) -> SweepResult:
    """Runs what is left of a sweep.

    Args:
        spec: the composed sweep file.
        root: folder of the store (``mlflow.db``, ``artifacts``) and of the sweeps' working files.
        single: one point, the search space left aside; no baselines.
        resume: False throws away what an earlier call has left of this sweep and starts anew.
        max_lanes: points in one pack at most; None: all of one structure together.
        progress: True, False, or None for a bar on a terminal and lines elsewhere.
        builders: in place of those of ``metalab.config``.
        on_chunk: called with the step after every chunk.
        checkpoint_seconds: longest time between two checkpoints of a pack.
        quick: spend less on compiling, for a sweep of a few steps.

    Raises:
        MetalabError: the user can mend it.
        SystemExit: 130 or 143 after Ctrl-C or SIGTERM, everything saved.
    """
    folder = root.absolute() / safe_name(spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folder), StopRequest().listening() as stop:
        made = builders or Builders.from_config()
        context = Context(
            spec=spec,
            folder=folder,
            store=Store(root, spec.name),
            compiler=Compiler(quick),
            progress=Progress(progress),
            stop=stop,
            evaluation_sets=lambda point: made.evaluation_sets(spec, point),
            on_chunk=on_chunk,
            checkpoint_seconds=checkpoint_seconds,
        )
        return _Sweep(context, made, single, max_lanes).run(resume)


class _Sweep:
    def __init__(self, context: Context, builders: Builders, single: bool, max_lanes: int | None) -> None:
        self._context, self._builders = context, builders
        self._single, self._max_lanes = single, max_lanes
        self._spec, self._store = context.spec, context.store
        config = {key: value for key, value in self._spec.config.items() if key not in _EXTENDS}
        self._digest = digest_of([self._spec.name, config, "single" if single else "sweep"])
        self._study = make_study(self._spec, context.folder, self._digest, single)
        self._failed: list[int] = []
        self._failed_baselines: list[str] = []
        self._structures: set[Any] = set()

    def run(self, resume: bool) -> SweepResult:
        if not resume:
            self._forget()
        name = self._spec.name
        tags = {"metalab.sweep": name, "metalab.name": name, "metalab.single": self._single}
        params = {"seeds": self._spec.seeds, **flatten(dataclasses.asdict(self._spec.budget), "budget.")}
        parent = self._store.open("sweep", self._digest, name, tags=tags, params=params)
        self._parent = parent
        self._upload("sweep.yaml", yaml.safe_dump(plain(self._spec.config), sort_keys=False))
        try:
            finished = self._points()
            if not self._single:
                point, build = self._first_point(), self._builders.baseline_sets
                self._failed_baselines = run_baselines(self._context, build, point, parent)
        except SweepStopped as stopped:
            self._close("KILLED")
            again = provenance.command()
            self._context.progress.say(f"{stopped}; everything is saved. To go on: {again}")
            raise SystemExit(stopped.exit_code) from stopped
        except Exception:
            self._close("FAILED")
            raise
        self._close("FAILED" if self._failed or self._failed_baselines else "FINISHED")
        return SweepResult(
            parent_run_id=parent.run_id,
            finished=finished,
            failed=len(self._failed),
            folder=self._context.folder,
            compilations=self._compilations(),
        )

    def _points(self) -> int:
        """Runs every batch of the study; returns the number of finished points."""
        study = self._study
        finished = study.finished
        while proposals := study.ask():
            points = [self._builders.make_point(self._spec, p.number, p.values) for p in proposals]
            self._run_batch(points)
            for proposal, point in zip(proposals, points, strict=True):
                run = self._store.find("point", point.digest)
                done = run is not None and run.status == "FINISHED"
                finished += done
                study.tell(proposal, run.metrics.get("objective") if run is not None and done else None)
        return finished

    def _run_batch(self, points: Sequence[Point]) -> None:
        runs = {point.digest: self._store.find("point", point.digest) for point in points}
        left: list[Point] = []
        for point in points:
            run = runs[point.digest]
            if run is None or run.status != "FINISHED":
                left.append(point)
            elif run.tags.get("mlflow.parentRunId") != self._parent.run_id and not self._single:
                # A sweep takes in a point that was run alone; a single run takes none away.
                self._store.tag(run.run_id, **{"mlflow.parentRunId": self._parent.run_id})
        packs = self._begun(points, {point.digest for point in left})
        begun = {point.digest for pack in packs for point in pack}
        fresh = {p.digest: p for p in left if p.digest not in begun}
        for group in group_by_structure(fresh.values(), lambda point: point.outer).values():
            packs += split(group, self._max_lanes or len(group))
        for pack in packs:
            self._structures.update(group_by_structure(pack, lambda point: point.outer))
            self._run_pack(pack, runs)

    def _begun(self, points: Sequence[Point], left: set[str]) -> list[list[Point]]:
        """Packs that an earlier call has left unfinished: they go on exactly as they were made."""
        by_digest = {point.digest: point for point in points}
        found = []
        for path in sorted(self._context.folder.glob("packs/*/pack.json")):
            digests = json.loads(path.read_text())["points"]
            if left.intersection(digests) and all(digest in by_digest for digest in digests):
                pack = [by_digest[digest] for digest in digests]
                if pack_folder(self._context, pack) == path.parent:
                    found.append(pack)
        return sorted(found, key=lambda pack: pack[0].number)

    def _run_pack(self, points: Sequence[Point], runs: Mapping[str, Handle | None]) -> None:
        opened = [self._open(point, runs[point.digest]) for point in points]
        folder = pack_folder(self._context, points)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pack.json").write_text(json.dumps({"points": [point.digest for point in points]}))
        try:
            PackRun(self._context, points, opened).run()
        except SweepStopped:
            self._end(opened, "KILLED")
            raise
        except MetalabError:
            self._end(opened, "FAILED")
            raise
        except Exception as error:  # one pack's failure must not take the others along
            self._fail(points, opened, error)
        else:
            shutil.rmtree(folder)

    def _open(self, point: Point, found: Handle | None) -> Handle:
        if found is not None and found.status == "FINISHED":
            return found
        tags = {
            "metalab.sweep": self._spec.name,
            "metalab.number": point.number,
            "metalab.name": f"point {point.number}",
            "metalab.searched": sorted(point.values),
        }
        name = f"{self._spec.name}-{point.number:04d}"
        params = flatten(point.config)
        handle = self._store.open(
            "point", point.digest, name, parent=self._parent.run_id, tags=tags, params=params
        )
        return dataclasses.replace(handle, status="RUNNING")

    def _end(self, runs: Sequence[Handle], status: str) -> None:
        for run in runs:
            if run.status != "FINISHED":
                self._store.close(run.run_id, status)

    def _fail(self, points: Sequence[Point], runs: Sequence[Handle], error: Exception) -> None:
        numbers = [point.number for point, run in zip(points, runs, strict=True) if run.status != "FINISHED"]
        self._failed += numbers
        self._context.progress.say(f"points {numbers} failed: {cause_of(error)}")
        text = "".join(traceback.format_exception(error))
        path = self._context.folder / "error.txt"
        path.write_text(text)
        for run in runs:
            if run.status != "FINISHED":
                self._store.tag(run.run_id, **{"metalab.error": cause_of(error)})
                self._store.artifact(run.run_id, path)
        self._end(runs, "FAILED")

    def _first_point(self) -> Point:
        """Point 0: what the baselines without a learner of their own are built from."""
        return self._builders.make_point(self._spec, 0, self._study.first())

    def _forget(self) -> None:
        shutil.rmtree(self._context.folder / "packs", ignore_errors=True)
        parent = self._store.find("sweep", self._digest)
        if parent is not None:
            self._store.forget(parent.run_id)
        self._study.forget()

    def _compilations(self) -> dict[str, int]:
        names = [made.name for made in self._context.compiler.compilations]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def _close(self, status: str) -> None:
        made = self._context.compiler.compilations
        seconds = {
            "trace_s": sum(one.trace_s for one in made),
            "compile_s": sum(one.compile_s for one in made),
            "run_s": self._context.run_s,
        }
        before = json.loads(self._parent.tags.get("metalab.seconds", "{}"))
        total = {name: value + before.get(name, 0.0) for name, value in seconds.items()}
        content = {
            **provenance.describe(),
            **total,
            "programs": len(self._structures),
            "compilations": [dataclasses.asdict(one) for one in made],
            "failed": [*self._failed, *self._failed_baselines],
        }
        self._upload("hardware.json", json.dumps(content, indent=2))
        self._store.tag(self._parent.run_id, **{"metalab.seconds": total})
        self._store.close(self._parent.run_id, status)

    def _upload(self, name: str, text: str) -> None:
        path = self._context.folder / name
        path.write_text(text)
        self._store.artifact(self._parent.run_id, path)
