"""The scheduler: which points run, in which pack, and what becomes of them.

Points are asked of the study and wait in the queue of their program. One pack runs at a time, that of the
program whose first waiting point was asked first; its berths are refilled from the queue as their points end.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml

from metalab import provenance
from metalab.devices import usable_cores
from metalab.errors import MetalabError, cause_of
from metalab.sweep.baselines import run_baselines
from metalab.sweep.context import Context
from metalab.sweep.guard import SweepStopped
from metalab.sweep.history import Series
from metalab.sweep.ledger import Commit, PackState, write_commit
from metalab.sweep.memory import berths_for, device_memory
from metalab.sweep.objective import at_the_end, so_far
from metalab.sweep.pack import Berth, Pack
from metalab.sweep.queues import Program, Queues, Standing
from metalab.sweep.recorder import Final, Recorder
from metalab.sweep.records import plain
from metalab.sweep.shrink import pays
from metalab.sweep.study import Proposal, Status
from metalab.tracking import flatten

__all__ = ["Ending", "Scheduler"]

_TALLIES = ("device_steps", "needed_steps", "trace_s", "compile_s", "run_s", "shrinks", "commits")
_DRAIN_AT_STOP = 10.0  # seconds; what is not delivered by then is delivered by the next call


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a point (or a baseline) ended that did not finish.

    Attributes:
        who: ``point 3`` or ``baseline a2c``.
        status: ``pruned``, ``diverged`` or ``failed``.
        step: outer steps done.
        reason: one line.
    """

    who: str
    status: str
    step: int
    reason: str


class Scheduler:
    """Runs a sweep from one commit to its end.

    Args:
        context: of the sweep.
        commit: where it stands.
    """

    def __init__(self, context: Context, commit: Commit) -> None:
        self._context, self._commit = context, commit
        self._spec, self._study, self._outbox = context.spec, context.study, context.outbox
        self._recorder = Recorder(
            context.spec, context.folder, context.outbox, context.manifest.id, context.study.attempt
        )
        self._standing = Standing(context.study.records(), context.spec.study.directions)
        self._queues = Queues(context, self._recorder, self._standing)
        self._pack: Pack | None = None
        self._baselines = list(commit.baselines)
        self._failed_baselines: list[Ending] = []
        self.tallies = {name: float(commit.tallies.get(name, 0.0)) for name in _TALLIES}
        self._counted = 0  # compilations that are in the tallies
        self._chunks = 0
        self._committed_at = self._started = time.monotonic()
        self._commit_took = 0.0  # seconds, the last one
        self._needed_before = self.tallies["needed_steps"]
        self._ahead: threading.Thread | None = None

    def run(self) -> None:
        """Runs all that is left.

        Raises:
            MetalabError: the user can mend it; the sweep stands at its last commit.
            SystemExit: stopped by a signal, everything saved.
        """
        try:
            self._open()
            self._resume()
            while (program := self._queues.next()) is not None:
                self._run_program(program)
            self._run_baselines()
        except SweepStopped as stopped:
            self._stop(stopped)
        finally:
            self._context.progress.end()
            if self._pack is not None:
                self._pack.close()
        self._close("FAILED" if self._nothing_finished() else "FINISHED")
        self._save()

    def endings(self) -> Iterator[Ending]:
        """The points that did not finish, by number, and the baselines that failed in this call."""
        for record in self._study.records():
            if record.status not in ("finished", "running"):
                yield Ending(f"point {record.number}", record.status, record.steps, record.reason)
        yield from self._failed_baselines

    def _open(self) -> None:
        """The sweep's own run."""
        spec, manifest = self._spec, self._context.manifest
        tags = {"metalab.sweep": spec.name, "metalab.name": spec.name, "metalab.single": manifest.single}
        if manifest.changes:
            tags["metalab.changes"] = list(manifest.changes)
        # Parameters of a run cannot be changed: those of the first call stand, and the tag tells the rest.
        params = {"seeds": spec.seeds, **flatten(dataclasses.asdict(spec.budget), "budget.")}
        params = {} if manifest.changes else params
        start_ms = int(time.time() * 1000)
        self._outbox.open(manifest.id, "sweep", spec.name, tags=tags, params=params, start_ms=start_ms)
        self._upload("sweep.yaml", yaml.safe_dump(plain(spec.config), sort_keys=False))
        # Interpolations and all: what a single point of this sweep is made from, see ``metalab best``.
        composed = yaml.safe_dump(plain(spec.raw or spec.config), sort_keys=False)
        (self._context.folder / "composed.yaml").write_text(composed)

    def _resume(self) -> None:
        """Takes up what an earlier call has left: the running pack, waiting points, those to run again."""
        again = ("failed", "diverged") if self._context.options.retry else ()
        saved = self._commit.pack
        seated = set(saved.numbers) if saved else set()
        for record in self._study.records():
            if record.status == "running" and record.number not in seated:
                self._queues.add(Proposal(record.number, record.values))
            elif record.status in again:
                self._again(record.number)
        if saved is not None:
            self._resume_pack(saved)
        else:
            shutil.rmtree(self._packs, ignore_errors=True)  # of a pack that no commit knows
            self._save()  # so that the sweep is in the store before its first compilation

    def _resume_pack(self, saved: PackState) -> None:
        values = {record.number: record.values for record in self._study.records()}
        berths: list[Berth | None] = []
        for number, digest, step in zip(saved.numbers, saved.points, saved.steps, strict=True):
            point = None if number is None else self._context.make_point(number, values[number])
            if point is not None and point.digest != digest:
                self._restart(saved)
                return
            berths.append(point and Berth(point, self._recorder.open(point), step, Series()))
        steps = [berth.step for berth in berths if berth is not None]
        if steps:
            self._context.progress.say(f"continues {len(steps)} point(s) from step {min(steps)}")
        # The pack goes on even if nobody sits in it: its program runs until no point waits for it.
        program = self._queues.program_of(self._context.make_point(saved.example, values[saved.example]))
        pack = self._pack = self._new_pack(program, len(berths))
        pack.restore(saved, berths)
        self._run_pack(program, pack)

    def _restart(self, saved: PackState) -> None:
        """The configuration was changed and the change accepted: the points under way begin again."""
        for number, step in zip(saved.numbers, saved.steps, strict=True):
            if number is not None:
                self._study.end(number, "failed", None, steps=step, reason="the configuration was changed")
                self._standing.note(None)
                self._again(number)
        shutil.rmtree(self._packs, ignore_errors=True)
        self._save()

    def _again(self, number: int) -> None:
        """A point that did not finish is queued once more, for a run of its own."""
        self._recorder.supersede(number)
        self._standing.again()
        self._queues.add(self._study.retry(number))

    @property
    def _packs(self) -> Path:
        return self._context.folder / "packs"

    def _run_program(self, program: Program) -> None:
        try:
            pack = self._pack = self._fitting_pack(program)
        except Exception as error:  # these points fail together, with their reason; other programs go on
            self._queues.fail(program, error)
            return
        self._run_pack(program, pack)

    def _run_pack(self, program: Program, pack: Pack) -> None:
        try:
            self._go(program, pack)
        except (SweepStopped, MetalabError):
            raise
        except Exception as error:  # one pack's failure must not take the others along
            self._fail_seated(pack, error)
        pack.close()
        self._pack = None
        self._save()
        shutil.rmtree(self._packs, ignore_errors=True)

    def _fitting_pack(self, program: Program) -> Pack:
        """A pack of as many berths as there is use for and as the devices' memory holds."""
        berths, memory = self._berths(program), device_memory(self._context.compiler.mesh.size)
        while True:
            pack = self._new_pack(program, berths)
            needed = pack.prepare()
            if needed <= memory or berths == 1:
                return pack
            berths = max(1, min(berths - 1, int(berths * memory / needed)))
            pack.close()

    def _berths(self, program: Program) -> int:
        limit = self._spec.study.batch
        most = len(program.queue) if limit is None else min(limit, self._study.total)
        most = min(most, self._context.options.max_lanes or most)
        return berths_for(program.example.outer, self._spec.seeds, most)

    def _new_pack(self, program: Program, berths: int) -> Pack:
        context = self._context
        return Pack(
            self._spec, context.compiler, program.example, berths, context.evaluation_sets, self._packs
        )

    def _go(self, program: Program, pack: Pack) -> None:
        context, spec = self._context, self._spec
        context.progress.begin(self._study.total, spec.budget.outer_steps * spec.seeds)
        while True:
            self._fill(program, pack)
            if not pack.occupied:
                return
            self._shrink(program, pack)
            self._compile_ahead(program)
            start = time.monotonic()
            pack.advance()
            steps = spec.budget.chunk
            self.tallies["device_steps"] += steps * pack.width
            self.tallies["needed_steps"] += steps * len(pack.occupied) * spec.seeds
            self._log(pack)
            self._end(pack)
            self.tallies["run_s"] += time.monotonic() - start
            self._report(pack)
            since, interval = (
                time.monotonic() - self._committed_at,
                context.options.commit_interval(self._commit_took),
            )
            if context.stop.signum is None and since >= interval:
                self._save()
            self._chunks += 1
            if context.options.on_chunk is not None:
                context.options.on_chunk(self._chunks)
            context.stop.check()

    def _fill(self, program: Program, pack: Pack) -> None:
        arrivals: dict[int, Berth] = {}
        for at in pack.free:
            point = self._queues.take(program)
            if point is None:
                break
            arrivals[at] = Berth(point, self._recorder.open(point), 0, Series())
        if arrivals:
            pack.seat(arrivals)

    def _shrink(self, program: Program, pack: Pack) -> None:
        """Narrows the pack when no point waits for it any more and at least half of its berths are empty."""
        how, left = self._context.options.shrink, len(pack.occupied)
        if how == "never" or not self._queues.exhausted or 2 * left > len(pack.berths):
            return
        mesh = self._context.compiler.mesh
        most = max(self._spec.budget.outer_steps - b.step for b in pack.berths if b is not None)
        spared = (len(pack.berths) - left) * self._spec.seeds
        platform = mesh.devices.flat[0].platform
        if how == "always" or pays(program.cost, spared, most, mesh.size, platform):
            pack.shrink()
            self.tallies["shrinks"] += 1

    def _compile_ahead(self, running: Program) -> None:
        """Compiles the next program beside the running one, where the devices leave cores idle."""
        mesh = self._context.compiler.mesh
        wanted = self._context.options.overlap
        if wanted is None:
            wanted = mesh.devices.flat[0].platform != "cpu" or mesh.size < usable_cores()
        following = self._queues.next(beside=running)
        if not wanted or self._ahead is not None or following is None:
            return

        def prepare() -> None:
            try:
                self._new_pack(following, self._berths(following)).prepare()
            except Exception as error:
                # It is compiled again when its turn comes, and fails there with its points.
                self._context.progress.say(f"compiling ahead failed: {cause_of(error)}")

        self._ahead = threading.Thread(target=prepare, name="metalab-compile", daemon=True)
        self._ahead.start()

    def _log(self, pack: Pack) -> None:
        objective = self._spec.study.objectives[0]
        for at in pack.occupied:
            berth = pack.berths[at]
            assert berth is not None
            if objective.startswith("train/") and objective not in berth.rows:
                known = ", ".join(sorted(name for name in berth.rows if name.startswith("train/")))
                raise MetalabError(
                    f"study.objective: {objective!r} is not logged by this outer loop; known: {known}"
                )
            fresh = {
                s: step
                for s, step in berth.series.diverged.items()
                if step > berth.step - self._spec.budget.chunk
            }
            self._recorder.chunk(berth.run, berth.step, berth.rows, berth.series.diverged if fresh else {})

    def _end(self, pack: Pack) -> None:
        """Ends the points that have finished, diverged in every seed, or are pruned."""
        total = self._spec.budget.outer_steps
        finished: list[int] = []
        for at in pack.occupied:
            berth = pack.berths[at]
            assert berth is not None
            if len(berth.series.diverged) == self._spec.seeds:
                first = max(berth.series.diverged.values())
                self._ended_as(pack, at, "diverged", reason=f"not finite in every seed by step {first}")
            elif berth.step >= total:
                finished.append(at)
            elif self._pruned(berth):
                self._ended_as(
                    pack, at, "pruned", reason=f"by {self._spec.study.pruner.kind} at step {berth.step}"
                )
        if finished:
            for at, final in zip(finished, pack.finals(finished), strict=True):
                self._ended_as(pack, at, "finished", final)

    def _pruned(self, berth: Berth) -> bool:
        study = self._spec.study
        if study.pruner.kind == "none" or study.objectives[0] not in berth.rows:
            return False
        values = so_far(study, berth.series)
        assert values is not None
        self._study.report(berth.point.number, berth.step, values)
        return self._study.should_prune(berth.point.number)

    def _ended_as(
        self, pack: Pack, at: int, status: Status, final: Final | None = None, reason: str = ""
    ) -> None:
        berth = pack.berths[at]
        assert berth is not None
        found = at_the_end(self._spec.study, berth.series, final.scores() if final else {})
        objective = None
        if status != "diverged" and all(values is not None for values in found):
            objective = [self._study.over_seeds(v, i) for i, v in enumerate(found) if v is not None]
        self._recorder.end(
            berth.point,
            berth.run,
            status,
            berth.series,
            objective,
            step=berth.step,
            final=final,
            reason=reason,
        )
        number = berth.point.number
        self._study.end(number, status, objective, steps=berth.step, reason=reason)
        pack.leave(at)
        self._standing.note(objective if status == "finished" else None)
        value = objective[0] if objective else None
        self._recorder.progress(self._standing.ended, number, value, self._standing.best)

    def _fail_seated(self, pack: Pack, error: Exception) -> None:
        (self._context.folder / "error.txt").write_text("".join(traceback.format_exception(error)))
        seated = pack.occupied
        numbers = [berth.point.number for berth in pack.berths if berth is not None]
        for at in seated:
            self._ended_as(pack, at, "failed", reason=cause_of(error))
        self._context.progress.say(
            f"points {numbers} failed: {cause_of(error)} (see {self._context.folder / 'error.txt'})"
        )

    def _report(self, pack: Pack) -> None:
        done = sum(berth.step for berth in pack.berths if berth is not None) * self._spec.seeds
        standing = self._standing
        self._context.progress.step(standing.ended, len(pack.occupied), done, self._pace(), standing.best)

    def _pace(self) -> float:
        """Lane steps of points per second in this call."""
        elapsed = time.monotonic() - self._started
        return (self.tallies["needed_steps"] - self._needed_before) / elapsed if elapsed > 0 else 0.0

    def _run_baselines(self) -> None:
        if self._context.manifest.single or not self._spec.baselines:
            return
        records = self._study.records()
        if not records:
            return
        point = self._context.make_point(0, records[0].values)

        def done(digest: str) -> None:
            self._baselines.append(digest)
            self._save()

        failed = run_baselines(self._context, point, set(self._baselines), done)
        self._failed_baselines = [Ending(f"baseline {name}", "failed", 0, reason) for name, reason in failed]

    def _save(self) -> None:
        """A commit: what it names is on disk before it is, and only then does the store hear of it."""
        begun = time.monotonic()
        self._count_compilations()
        self.tallies["commits"] += 1
        serial = self._commit.serial + 1
        pack = self._pack
        saved = pack.save(serial) if pack is not None and pack.begun else None
        self._commit = Commit(
            serial=serial,
            study=self._study.commit(),
            outbox=self._outbox.flush(),
            pack=saved,
            baselines=tuple(self._baselines),
            tallies=dict(self.tallies),
            steps_per_s=self._pace(),
            written=time.time(),
        )
        write_commit(self._context.folder, self._commit)
        self._outbox.release(self._commit.outbox)
        if pack is not None and saved is not None:
            pack.committed(serial)
        self._committed_at = time.monotonic()
        self._commit_took = self._committed_at - begun

    def _count_compilations(self) -> None:
        made = self._context.compiler.compilations
        for one in made[self._counted :]:
            self.tallies["trace_s"] += one.trace_s
            self.tallies["compile_s"] += one.compile_s
        self._counted = len(made)

    def _stop(self, stopped: SweepStopped) -> None:
        """Leaves everything as the next call will find it, says how to go on, and exits."""
        for berth in self._pack.berths if self._pack is not None else ():
            if berth is not None:
                self._outbox.close(berth.run, "KILLED")
        self._close("KILLED")
        self._save()
        again = provenance.command_to_go_on()
        self._context.progress.say(f"{stopped}; everything is saved. To go on: {again}")
        if not self._outbox.drain(timeout=_DRAIN_AT_STOP):
            self._context.progress.say(
                f"{self._outbox.waiting} records still wait for the store; the next call delivers them"
            )
        raise SystemExit(stopped.exit_code) from stopped

    def _nothing_finished(self) -> bool:
        return all(record.status in ("failed", "diverged") for record in self._study.records())

    def _close(self, status: str) -> None:
        self._count_compilations()
        compilations = [dataclasses.asdict(one) for one in self._context.compiler.compilations]
        content = {
            **provenance.describe(),
            **self.tallies,
            "programs": self._queues.programs,
            "compilations": compilations,
            "endings": [dataclasses.asdict(ending) for ending in self.endings()],
            "changes": list(self._context.manifest.changes),
        }
        self._upload("hardware.json", json.dumps(content, indent=2))
        parent = self._context.manifest.id
        self._outbox.tag(
            parent, **{"metalab.seconds": {k: v for k, v in self.tallies.items() if k.endswith("_s")}}
        )
        self._outbox.close(parent, status)

    def _upload(self, name: str, text: str) -> None:
        """A file of the sweep's own run."""
        path = self._context.folder / name
        path.write_text(text)
        self._outbox.artifact(self._context.manifest.id, path)
